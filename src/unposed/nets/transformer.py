"""Transformer blocks of the CroCo family (CroCo, section 3; CroCo v2, section 3.2; DUSt3R, section 3.1).

All blocks are pre-norm, LayerNorm epsilon 1e-6, exact GELU, biases everywhere, no dropout. The sum that runs through
the blocks stays float32; ``Linear`` layers compute in the type of their weights, which is how a network is put into
bfloat16 (``unposed.nets.precision``).
"""

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unposed.nets.positions import Grid, RotaryTable, rotate

LayerNorm = partial(nn.LayerNorm, eps=1e-6)

Tokens = Float[Tensor, "batch tokens width"]


class Linear(nn.Linear):
    """A linear layer that computes in the type of its weights, whatever the type of its input."""

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch out"]:
        """Affine map of the last axis."""
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class PatchEmbed(nn.Module):
    """One token per patch: a linear map of its pixels (a convolution with stride = kernel)."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Float[Tensor, "batch 3 height_px width_px"]) -> Tokens:
        """Tokens of the pictures, row-major; both sides are multiples of the patch."""
        return self.proj(images.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2).float()

    def grid(self, images: Float[Tensor, "batch 3 height_px width_px"]) -> Grid:
        """Rows and columns of patches of the pictures.

        Raises:
            ValueError: a side is no multiple of the patch.
        """
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ValueError(f"picture of {height} x {width} pixels: both must be multiples of {self.patch}")
        return height // self.patch, width // self.patch


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tokens, rotary: RotaryTable | None) -> Tokens:
        """Attended sequence."""
        qkv = self.qkv(x).unflatten(-1, (3 * self.heads, -1))
        qk, v = qkv.split([2 * self.heads, self.heads], 2)
        if rotary is not None:
            qk = rotate(qk, rotary)
        q, k = qk.chunk(2, 2)
        return self.proj(_attend(q, k, v))


class CrossAttention(nn.Module):
    """Multi-head attention of one sequence to another."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = Linear(width, width)
        self.projk = Linear(width, width)
        self.projv = Linear(width, width)
        self.proj = Linear(width, width)

    def forward(
        self, x: Tokens, memory: Tokens, rotary: RotaryTable | None, memory_rotary: RotaryTable | None
    ) -> Tokens:
        """``x`` asks, ``memory`` answers; each is turned by its own positions."""
        q, k, v = (
            layer(tokens).unflatten(-1, (self.heads, -1))
            for layer, tokens in ((self.projq, x), (self.projk, memory), (self.projv, memory))
        )
        if rotary is not None and memory_rotary is not None:
            q, k = rotate(q, rotary), rotate(k, memory_rotary)
        return self.proj(_attend(q, k, v))


def _attend(
    q: Float[Tensor, "batch n heads head_dim"],
    k: Float[Tensor, "batch m heads head_dim"],
    v: Float[Tensor, "batch m heads head_dim"],
) -> Tokens:
    attended = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return attended.transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, ratio: float, out_width: int | None = None) -> None:
        super().__init__()
        self.fc1 = Linear(width, int(width * ratio))
        self.fc2 = Linear(int(width * ratio), out_width or width)

    def forward(self, x: Tokens) -> Tokens:
        """Per-token map."""
        return self.fc2(F.gelu(self.fc1(x)))


class EncoderBlock(nn.Module):
    """Self-attention, then MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(self, x: Tokens, rotary: RotaryTable | None) -> Tokens:
        """Updated sequence."""
        x = x + self.attn(self.norm1(x), rotary)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention to the other picture's sequence, then MLP; the other sequence stays as it is."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4, norm_memory: bool = True) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = LayerNorm(width)
        self.norm_y = LayerNorm(width) if norm_memory else nn.Identity()
        self.cross_attn = CrossAttention(width, heads)
        self.norm3 = LayerNorm(width)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(
        self, x: Tokens, memory: Tokens, rotary: RotaryTable | None, memory_rotary: RotaryTable | None
    ) -> Tokens:
        """Updated ``x``."""
        x = x + self.attn(self.norm1(x), rotary)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(memory), rotary, memory_rotary)
        return x + self.mlp(self.norm3(x))


class Encoder(nn.Module):
    """The blocks of a vision transformer and its final norm; tokens in, tokens out."""

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float = 4) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = LayerNorm(width)

    def forward(self, x: Tokens, rotary: RotaryTable | None) -> Tokens:
        """Normalised output of the last block."""
        return self.all_layers(x, rotary)[-1]

    def all_layers(self, x: Tokens, rotary: RotaryTable | None) -> list[Tokens]:
        """Output of every block, of which only the last is normalised."""
        layers = []
        for block in self.blocks:
            x = block(x, rotary)
            layers.append(x)
        layers[-1] = self.norm(x)
        return layers


class TwinDecoder(nn.Module):
    """Two decoders that look at each other: block l of either reads layer l - 1 of both (DUSt3R, section 3.1)."""

    def __init__(self, memory_width: int, width: int, depth: int, heads: int, mlp_ratio: float = 4) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.embed = Linear(memory_width, width)
        self.blocks1 = nn.ModuleList(DecoderBlock(width, heads, mlp_ratio) for _ in range(depth))
        self.blocks2 = nn.ModuleList(DecoderBlock(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = LayerNorm(width)

    def forward(
        self, tokens1: Tokens, tokens2: Tokens, rotary1: RotaryTable, rotary2: RotaryTable
    ) -> tuple[Sequence[Tokens], Sequence[Tokens]]:
        """Per stream: the encoder's tokens, then the output of every block, of which only the last is normalised."""
        layers1, layers2 = [tokens1], [tokens2]
        x1, x2 = self.embed(tokens1).float(), self.embed(tokens2).float()
        for block1, block2 in zip(self.blocks1, self.blocks2, strict=True):
            x1, x2 = block1(x1, x2, rotary1, rotary2), block2(x2, x1, rotary2, rotary1)
            layers1.append(x1)
            layers2.append(x2)
        layers1[-1], layers2[-1] = self.norm(x1), self.norm(x2)
        return layers1, layers2


def initialise(module: nn.Module) -> None:
    """Initial weights of the family: Xavier-uniform linear maps and patch projections, zero biases (CroCo)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, PatchEmbed):
            nn.init.xavier_uniform_(layer.proj.weight.flatten(1))
