"""DINOv2 vision transformer (Oquab et al., 2023): pictures to patch tokens and a class token.

Pre-norm blocks with LayerScale, learned absolute positions that are interpolated to any grid, optional register tokens
(Darcet et al., 2024). Module names are those of the released files.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unposed.nets.positions import Grid
from unposed.nets.transformer import LayerNorm, Linear, Mlp, PatchEmbed, SelfAttention

PATCH = 14
_OFFSET = 0.1
"""Added to the grid when positions are stretched; the released models without registers were trained that way."""


@dataclass(frozen=True)
class DinoV2Config:
    """Sizes of a network; the defaults are what all released ones share."""

    width: int
    depth: int
    heads: int
    image_size: int = 518
    """Side of the square picture that the table of positions is made for."""
    registers: int = 0
    gated_mlp: bool = False
    """SwiGLU instead of GELU, in the largest variant."""
    antialias: bool = False
    """Whether positions are averaged when their grid shrinks."""
    offset: float = _OFFSET

    @classmethod
    def named(cls, name: str) -> "DinoV2Config | None":
        """Configuration of ``dinov2_vits14``, ``dinov2_vitl14_reg`` and so on; None for another name."""
        if name in VARIANTS:
            return VARIANTS[name]
        base = VARIANTS.get(re.sub(r"_reg$", "", name))
        return base and replace(base, registers=4, antialias=True, offset=0.0)


VARIANTS = {
    "dinov2_vits14": DinoV2Config(384, 12, 6),
    "dinov2_vitb14": DinoV2Config(768, 12, 12),
    "dinov2_vitl14": DinoV2Config(1024, 24, 16),
    "dinov2_vitg14": DinoV2Config(1536, 40, 24, gated_mlp=True),
}
"""Released sizes; each has a twin with four registers, ``<name>_reg``."""


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Scaled tokens."""
        return x * self.gamma


class GatedMlp(nn.Module):
    """SwiGLU: one half of a linear map, through SiLU, times the other half."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = Linear(width, 2 * hidden)
        self.w3 = Linear(hidden, width)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Per-token map."""
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class Block(nn.Module):
    """Self-attention, then MLP, each behind a norm and scaled."""

    def __init__(self, config: DinoV2Config) -> None:
        super().__init__()
        width = config.width
        self.norm1 = LayerNorm(width)
        self.attn = SelfAttention(width, config.heads)
        self.ls1 = LayerScale(width)
        self.norm2 = LayerNorm(width)
        hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
        self.mlp = GatedMlp(width, hidden) if config.gated_mlp else Mlp(width, 4)
        self.ls2 = LayerScale(width)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Updated sequence."""
        x = x + self.ls1(self.attn(self.norm1(x), None))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Features(NamedTuple):
    """What the network says of a batch of pictures after some of its blocks, each normalised."""

    patches: list[Float[Tensor, "batch tokens width"]]
    """Patch tokens (row-major) of every chosen block."""
    cls: Float[Tensor, "batch width"]
    """Class token of the last chosen block."""


class DinoV2(nn.Module):
    """The network."""

    def __init__(self, config: DinoV2Config) -> None:
        super().__init__()
        self.config = config
        self.side = config.image_size // PATCH
        self.patch_embed = PatchEmbed(PATCH, config.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        if config.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.side**2, config.width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = LayerNorm(config.width)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], blocks: Sequence[int], *, by_size: bool = False
    ) -> Features:
        """Features after ``blocks`` (numbers from 0, ascending) of normalised pictures; sides are multiples of 14.

        ``by_size`` stretches positions as exported graphs do, exactly to the grid and without the trained offset.
        """
        grid = self.patch_embed.grid(images)
        cls_position, positions = self._positions(grid, by_size)
        tokens = [(self.cls_token + cls_position).expand(len(images), -1, -1), self.patch_embed(images) + positions]
        if self.config.registers:
            tokens.insert(1, self.register_tokens.expand(len(images), -1, -1))
        x, layers = torch.cat(tokens, 1), []
        for number, block in enumerate(self.blocks[: max(blocks) + 1]):
            x = block(x)
            if number in blocks:
                layers.append(self.norm(x))
        first = 1 + self.config.registers
        return Features([layer[:, first:] for layer in layers], layers[-1][:, 0])

    def _positions(
        self, grid: Grid, by_size: bool
    ) -> tuple[Float[Tensor, "1 1 width"], Float[Tensor, "1 tokens width"]]:
        """Positions of the class token and of the patches of a grid."""
        own, table = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        if grid == (self.side, self.side) and not by_size:
            return own, table
        picture = table.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2).float()
        offset = self.config.offset
        if by_size or not offset:
            picture = F.interpolate(picture, size=grid, mode="bicubic", antialias=self.config.antialias)
        else:  # the factor itself, not the ratio of the sizes, decides where the table is sampled
            scale = [(length + offset) / self.side for length in grid]
            picture = F.interpolate(picture, scale_factor=scale, mode="bicubic", antialias=self.config.antialias)
        return own, picture.flatten(2).mT
