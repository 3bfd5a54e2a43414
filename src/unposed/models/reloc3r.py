"""Reloc3r: two pictures in, the relative pose of their cameras out, without points and without focal lengths.

Dong, Wang, Liu, Cai, Fan, Kannala, Yang: Reloc3r, CVPR 2025. Encoder and decoder blocks are DUSt3R's, but one decoder
serves both pictures; a head averages over all tokens of a picture and regresses its camera's pose in the other's
frame (section 3.2). Rotations are exact; of a translation only the direction means anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unposed.errors import UserError
from unposed.geometry.rotation_projection import rotation_from_6d, rotation_from_9d
from unposed.geometry.transforms import rigid
from unposed.io.checkpoints import Checkpoint, Rename, load_tensors, parse_constructor, rename_tensors
from unposed.io.resize import ImageRule
from unposed.models.base import PairPose
from unposed.models.batching import Features, decode_in_batches
from unposed.models.croco import are_sides, check_sizes, rope_base
from unposed.models.picture_encoder import Encoded, Images, PictureEncoder, Shapes
from unposed.nets.positions import RotaryTable
from unposed.nets.transformer import DecoderBlock, LayerNorm, Linear, Tokens, initialise
from unposed.views import Pair, View

_ROTATION_NUMBERS = {"9D": 9, "6D": 6}
_FIXED = {"layernorm_eps": 1e-6, "norm_layer": None, "output_mode": None}
"""Keywords that change nothing here, and the value they must have where that matters."""
_ALIASES = {"norm_memory_in_decoder": "norm_im2_in_dec"}


@dataclass(frozen=True)
class Reloc3rConfig:
    """Sizes; the defaults are those of the released models, of which the smaller has another ``img_size``."""

    img_size: int | tuple[int, int] = 512
    """Long side of the pictures seen in training; it changes no weight."""
    patch_size: int = 16
    enc_embed_dim: int = 1024
    enc_depth: int = 24
    enc_num_heads: int = 16
    dec_embed_dim: int = 768
    dec_depth: int = 12
    dec_num_heads: int = 12
    mlp_ratio: float = 4
    norm_im2_in_dec: bool = True
    pos_embed: str = "RoPE100"
    rotation: str = "9D"
    """Numbers that the head regresses for a rotation, 9D or 6D."""
    res_conv_blocks: int = 2

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> Self:
        """From the keywords of the reference's constructor; the released values for those that are not there.

        Raises:
            UserError: an unknown keyword, or a value that no such network can have.
        """
        values: dict[str, Any] = {
            _ALIASES.get(key, key): tuple(v) if isinstance(v, list) else v for key, v in keywords.items()
        }
        known = {field.name for field in fields(cls)}
        for key in sorted(set(values) - known):
            if key not in _FIXED or _FIXED[key] not in (None, values[key]):
                raise UserError(f"The configuration has {key!r}, which Reloc3r does not know; is it another model's?")
        config = cls(**{key: value for key, value in values.items() if key in known})
        check_sizes(config.enc_embed_dim, config.enc_depth, config.enc_num_heads)
        check_sizes(config.dec_embed_dim, config.dec_depth, config.dec_num_heads)
        if rope_base(config.pos_embed) is None or config.rotation not in _ROTATION_NUMBERS:
            raise UserError("This configuration has a position embedding or a rotation that no Reloc3r has.")
        sides = config.img_size if isinstance(config.img_size, tuple) else (config.img_size, config.img_size)
        if not are_sides(sides) or config.patch_size not in (8, 14, 16, 32) or config.mlp_ratio not in (1, 2, 3, 4):
            raise UserError("This configuration has other picture or patch sizes than a released one can have.")
        if config.res_conv_blocks not in range(9):
            raise UserError("This configuration has an impossible number of blocks in its pose head.")
        return config

    @property
    def long_side(self) -> int:
        """Of the pictures seen in training, pixels."""
        return max(self.img_size) if isinstance(self.img_size, tuple) else self.img_size


class BothPoses(NamedTuple):
    """Two independent predictions: one need not be the inverse of the other."""

    pose1: Float[Tensor, "batch 4 4"]
    """Camera 1 to camera 2."""
    pose2: Float[Tensor, "batch 4 4"]
    """Camera 2 to camera 1: the one that published numbers are of."""


class Reloc3r(PictureEncoder):
    """The network and its use as a ``PoseModel``."""

    def __init__(self, config: Reloc3rConfig, name: str = "reloc3r") -> None:
        base = rope_base(config.pos_embed)
        width, heads = config.enc_embed_dim, config.enc_num_heads
        super().__init__(config.patch_size, width, config.enc_depth, heads, base, config.mlp_ratio)
        self.config = config
        self.name = name
        self.image_rule = ImageRule(size=config.long_side, patch=config.patch_size)
        self.decoder = SharedDecoder(config)
        for part in (self.patch_embed, self.encoder, self.decoder):
            initialise(part)
        self.head = PoseHead(config)

    def decode_tokens(self, view1: Encoded, view2: Encoded) -> tuple[Tokens, Tokens]:
        """Tokens of both pictures after the decoder, normalised; the pictures may differ in size."""
        rotary1, rotary2 = (self._rotary(view.positions, self.decoder.head_dim) for view in (view1, view2))
        return self.decoder(view1.tokens, view2.tokens, rotary1, rotary2)

    def forward(
        self, images1: Images, images2: Images, true_shape1: Shapes | None = None, true_shape2: Shapes | None = None
    ) -> BothPoses:
        """Differentiable forward of a batch of pairs; see ``encode_images`` for ``true_shape``."""
        return self.read_out(self.encode_images(images1, true_shape1), self.encode_images(images2, true_shape2))

    def read_out(self, view1: Encoded, view2: Encoded) -> BothPoses:
        """Both poses of encoded pictures, the head in float32."""
        decoded1, decoded2 = self.decode_tokens(view1, view2)
        with torch.autocast(decoded1.device.type, enabled=False):
            return BothPoses(self.head(decoded1.float()), self.head(decoded2.float()))

    @torch.no_grad()
    def relative_poses(
        self, views: Sequence[View], features: Sequence[Features], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairPose]]:
        """Poses of ordered pairs, batched by the shapes of their views."""

        def decode(
            view_i: Features, view_j: Features, size_i: tuple[int, int], size_j: tuple[int, int]
        ) -> tuple[Tensor, Tensor]:
            encoded_i, encoded_j = self._encoded(view_i["tokens"], size_i), self._encoded(view_j["tokens"], size_j)
            j_from_i, i_from_j = self.read_out(encoded_i, encoded_j)
            return j_from_i.double().cpu(), i_from_j.double().cpu()

        for batch, (j_from_i, i_from_j) in decode_in_batches(decode, views, features, pairs, self.device):
            for k, pair in enumerate(batch):
                yield pair, PairPose(j_from_i[k], i_from_j[k])

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, name: str = "reloc3r") -> Self:
        """The network of a hub folder, of a flat state dict, of one under ``model``, or of a training checkpoint.

        Of a file that does not say how its network is built, the sizes are the released ones, and the picture size is
        224 where its name says so, as in the authors' tools.

        Raises:
            UserError: names or shapes that do not fit.
        """
        keywords = dict(_released_keywords(checkpoint))
        named = f"{name} {checkpoint.path.parent.name} {checkpoint.path.name}"
        keywords.setdefault("img_size", 224 if "224" in named else 512)
        with torch.device("meta"):
            network = cls(Reloc3rConfig.from_keywords(keywords), name)
        load_tensors(network, rename_tensors(checkpoint.tensors, KEYS), checkpoint.path)
        return network


def is_reloc3r(checkpoint: Checkpoint) -> bool:
    """Whether a file holds such a network: no other of the family regresses a pose."""
    return "pose_head.fc_t.weight" in checkpoint.tensors


def _released_keywords(checkpoint: Checkpoint) -> Mapping[str, Any]:
    config, arguments = checkpoint.extra.get("config"), checkpoint.extra.get("args")
    if config is not None:
        return config
    if isinstance(arguments, dict) and "model" in arguments:
        return parse_constructor(arguments["model"])[1]
    return {}


class SharedDecoder(nn.Module):
    """One stack of blocks for both pictures; block l of either reads layer l - 1 of both (Reloc3r, section 3.2)."""

    def __init__(self, config: Reloc3rConfig) -> None:
        super().__init__()
        width, heads = config.dec_embed_dim, config.dec_num_heads
        self.head_dim = width // heads
        self.embed = Linear(config.enc_embed_dim, width)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, heads, config.mlp_ratio, config.norm_im2_in_dec) for _ in range(config.dec_depth)
        )
        self.norm = LayerNorm(width)

    def forward(
        self, tokens1: Tokens, tokens2: Tokens, rotary1: RotaryTable, rotary2: RotaryTable
    ) -> tuple[Tokens, Tokens]:
        """Normalised output of the last block for both pictures."""
        x1, x2 = self.embed(tokens1).float(), self.embed(tokens2).float()
        for block in self.blocks:
            x1, x2 = block(x1, x2, rotary1, rotary2), block(x2, x1, rotary2, rotary1)
        return self.norm(x1), self.norm(x2)


class PoseHead(nn.Module):
    """Tokens of a picture to the pose of its camera in the other's frame: per-token maps, a mean, and an MLP."""

    def __init__(self, config: Reloc3rConfig) -> None:
        super().__init__()
        width = 4 * config.patch_size**2
        self.proj = nn.Linear(config.dec_embed_dim, width)
        self.residual = nn.ModuleList(ResidualConv(width) for _ in range(config.res_conv_blocks))
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.translation = nn.Linear(width, 3)
        self.rotation = nn.Linear(width, _ROTATION_NUMBERS[config.rotation])

    def forward(self, tokens: Tokens) -> Float[Tensor, "batch 4 4"]:
        """The pose; the length of its translation means nothing."""
        x = self.proj(tokens).mT[..., None]
        for block in self.residual:
            x = block(x)
        x = self.mlp(x.mean((-2, -1)))
        numbers = self.rotation(x)
        rotation = rotation_from_9d(numbers) if numbers.shape[-1] == 9 else rotation_from_6d(numbers)
        return rigid(rotation, self.translation(x))


class ResidualConv(nn.Module):
    """Three maps of every token (convolutions of one pixel), a ReLU after each, and a skip around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(width, width, 1) for _ in range(3))

    def forward(self, x: Float[Tensor, "batch width tokens 1"]) -> Float[Tensor, "batch width tokens 1"]:
        """Updated tokens."""
        return x + F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))))


KEYS = (
    Rename(r"enc_blocks\.(.+)", r"encoder.blocks.\1"),
    Rename(r"enc_norm\.(.+)", r"encoder.norm.\1"),
    Rename(r"decoder_embed\.(.+)", r"decoder.embed.\1"),
    Rename(r"dec_blocks\.(.+)", r"decoder.blocks.\1"),
    Rename(r"dec_norm\.(.+)", r"decoder.norm.\1"),
    Rename(r"pose_head\.proj\.(.+)", r"head.proj.\1"),
    Rename(r"pose_head\.res_conv\.(\d+)\.res_conv([123])\.(.+)", r"head.residual.\1.conv\2.\3"),
    Rename(r"pose_head\.more_mlps\.(.+)", r"head.mlp.\1"),
    Rename(r"pose_head\.fc_t\.(.+)", r"head.translation.\1"),
    Rename(r"pose_head\.fc_rot\.(.+)", r"head.rotation.\1"),
)
"""Names of the released files to ours."""
