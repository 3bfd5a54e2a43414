"""Where a token sits on the patch grid: rotary tables (CroCo v2, section 3.2) and cosine tables (CroCo v1).

Positions are integer (row, column), row-major from (0, 0). A rotary table is made once per grid and head width and
shared by all layers.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Grid = tuple[int, int]
"""(rows, columns) of patches."""


class RotaryTable(NamedTuple):
    """Cosines and sines for 2D rotary embedding; the batch axis is 1 where all samples share one grid."""

    cos: Float[Tensor, "batch tokens 1 2 quarter"]
    sin: Float[Tensor, "batch tokens 1 2 quarter"]


def grid_positions(grid: Grid, device: torch.device | str | None = None) -> Int[Tensor, "tokens 2"]:
    """(row, column) of every patch, row-major."""
    rows, columns = (torch.arange(length, device=device) for length in grid)
    return torch.cartesian_prod(rows, columns).reshape(-1, 2)


def rotary_table(positions: Int[Tensor, "*batch tokens 2"], head_dim: int, base: float) -> RotaryTable:
    """Table for tokens at the given positions: row angles turn the first half of a head, column angles the second.

    Angle k of a half of m channels is ``position * base ** (-2 k / m)``, k = 0 .. m/2 - 1, in float32.

    Raises:
        ValueError: ``head_dim`` is no multiple of 4.
    """
    if head_dim % 4:
        raise ValueError(f"2D rotary embedding needs a head width that is a multiple of 4, not {head_dim}")
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, dtype=torch.float32, device=positions.device) / half
    angles = positions.float()[..., None] * base**-exponents
    angles = angles.reshape(-1, *angles.shape[-3:])[:, :, None]
    return RotaryTable(angles.cos(), angles.sin())


def rotate(
    x: Float[Tensor, "batch tokens heads head_dim"], table: RotaryTable
) -> Float[Tensor, "batch tokens heads head_dim"]:
    """Turn queries or keys by their positions; within each half, channel k pairs with channel k + m/2."""
    quarters = x.unflatten(-1, (2, 2, -1))
    a, b = quarters.unbind(-2)
    cos, sin = table.cos.to(x.dtype), table.sin.to(x.dtype)
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -2).flatten(-3)


def cosine_table(grid: Grid, width: int) -> Float[Tensor, "tokens width"]:
    """Fixed sine-cosine table of CroCo v1; the first half of the channels tells the COLUMN, the second the row."""
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = grid_positions(grid).flip(-1).double()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2).float()


def resize_table(table: Float[Tensor, "tokens width"], grid: Grid) -> Float[Tensor, "resized_tokens width"]:
    """A table of a square grid, bicubic, on another grid."""
    side = round(table.shape[0] ** 0.5)
    image = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    return F.interpolate(image, size=grid, mode="bicubic", align_corners=False)[0].flatten(1).T
