"""Nearest resize of maps with holes: every cell takes the valid pixel nearest to its centre (MoGe, released code)."""

import math

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


def masked_nearest(
    mask: Bool[Tensor, "*batch height width"], size: tuple[int, int]
) -> tuple[Bool[Tensor, "*batch rows columns"], Int64[Tensor, "*batch rows columns"]]:
    """Which cells of a map of ``size`` have a valid pixel in their window, and which pixel (row-major) is nearest.

    The window of a cell is as large as the ratio of the sizes, at least a pixel; ties go to the first pixel. The pixel
    of a cell without a valid one is 0.
    """
    height, width = mask.shape[-2:]
    rows, row_gaps = _windows(height, size[0], mask.device)
    columns, column_gaps = _windows(width, size[1], mask.device)
    exist = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[None, :, None]
    pixels = rows.clamp(0, height - 1)[:, None, :, None] * width + columns.clamp(0, width - 1)[None, :, None]
    valid = mask.flatten(-2)[..., pixels.flatten()].unflatten(-1, pixels.shape) & exist
    gaps = (row_gaps.square()[:, None, :, None] + column_gaps.square()[None, :, None]).expand(valid.shape)
    nearest = torch.where(valid, gaps, torch.inf).flatten(-2).min(-1)
    found = nearest.values.isfinite()
    chosen = pixels.flatten(-2).expand(*found.shape, -1).gather(-1, nearest.indices[..., None])[..., 0]
    return found, torch.where(found, chosen, 0)


def _windows(length: int, cells: int, device: torch.device) -> tuple[Int64[Tensor, "cells window"], Tensor]:
    """Pixels in the window of every cell along one axis, and how far their centres are from the cell's."""
    odd, window = 2 * torch.arange(cells, device=device) + 1, max(length, cells)
    first = ((odd * length - window) / (2 * cells)).round().long()  # whole numbers divided once: halves stay halves
    pixels = first[:, None] + torch.arange(math.ceil(window / cells), device=device)
    return pixels, pixels + 0.5 - (odd * length / (2 * cells))[:, None]


def take(values: Tensor, pixels: Int64[Tensor, "*batch rows columns"], channels: bool = False) -> Tensor:
    """Values of a map (batch x height x width, and channels last where it has some) at the given pixels."""
    where = pixels.flatten(-2)
    if not channels:
        return values.flatten(-2).gather(-1, where).unflatten(-1, pixels.shape[-2:])
    flat = values.flatten(-3, -2)
    return flat.gather(-2, where[..., None].expand(*where.shape, flat.shape[-1])).unflatten(-2, pixels.shape[-2:])
