"""The encoder that all networks of the family share: one ViT for every picture, whichever way it is stored."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unposed.models.batching import Features, encode_by_size
from unposed.nets.positions import RotaryTable, grid_positions, rotary_table
from unposed.nets.transformer import Encoder, PatchEmbed
from unposed.views import View

Images = Float[Tensor, "batch 3 height width"]
Shapes = Int[Tensor, "batch 2"]


class Encoded(NamedTuple):
    """Pictures after the encoder."""

    tokens: Float[Tensor, "batch tokens width"]
    positions: Int[Tensor, "batch tokens 2"]
    """(row, column) of every token on the grid of its picture as it really is, not as it may be stored."""


class PictureEncoder(nn.Module):
    """Patch embedding and encoder with rotary positions (DUSt3R, section 3.1); networks of pairs build on it."""

    def __init__(
        self, patch: int, width: int, depth: int, heads: int, rope_base: float | None, mlp_ratio: float = 4
    ) -> None:
        super().__init__()
        self._rope_base = rope_base or 100.0
        self.patch_embed = PatchEmbed(patch, width)
        self.encoder = Encoder(width, depth, heads, mlp_ratio)

    def encode_images(self, images: Images, true_shape: Shapes | None = None) -> Encoded:
        """Encode pictures in [-1, 1].

        For training, portrait pictures may be stored transposed among landscape ones; ``true_shape`` then holds every
        picture's real (height, width), and such a picture is embedded as the portrait it is.
        """
        grid = self.patch_embed.grid(images)
        tokens, positions = self.patch_embed(images), grid_positions(grid, images.device).expand(len(images), -1, -1)
        transposed = stored_transposed(images, true_shape)
        if transposed is not None:
            portrait = transposed[:, None, None]
            tokens = torch.where(portrait, self.patch_embed(images.mT), tokens)
            positions = torch.where(portrait, grid_positions(grid[::-1], images.device), positions)
        return Encoded(self.encoder(tokens, self._rotary(positions, self.encoder.head_dim)), positions)

    def _rotary(self, positions: Int[Tensor, "batch tokens 2"], head_dim: int) -> RotaryTable:
        return rotary_table(positions, head_dim, self._rope_base)

    def _encoded(self, tokens: Float[Tensor, "batch tokens width"], size: tuple[int, int]) -> Encoded:
        """Tokens of views of one (height, width) with their positions."""
        grid = size[0] // self.patch_embed.patch, size[1] // self.patch_embed.patch
        return Encoded(tokens, grid_positions(grid, tokens.device).expand(len(tokens), -1, -1))

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.patch_embed.proj.weight.device

    @torch.no_grad()
    def encode(self, views: Sequence[View]) -> list[Features]:
        """``tokens`` of each view; portrait views stay portrait."""
        return encode_by_size(lambda images: {"tokens": self.encode_images(images).tokens}, views, self.device)


def stored_transposed(images: Images, true_shape: Shapes | None) -> Bool[Tensor, " batch"] | None:
    """Which pictures are portrait but stored landscape; None where none is."""
    if true_shape is None or images.shape[-2] >= images.shape[-1]:
        return None
    transposed = (true_shape[:, 0] > true_shape[:, 1]).to(images.device)
    return transposed if transposed.any() else None
