"""Dense depth of two posed views: plane sweep with zero-mean normalised correlation and semi-global aggregation.

Sources: Collins, "A space-sweep approach to true multi-image matching", CVPR 1996; Hirschmueller, "Stereo processing by
semiglobal matching", PAMI 2008. Runs at a reduced resolution; the depth map that comes out is complete, the support
says where to believe it.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from unposed.geometry.cameras import intrinsics_matrix, pixel_grid, project
from unposed.geometry.transforms import invert_rigid, transform_points

LONG_SIDE = 224
"""Long side in pixels of the images that are swept."""
WINDOW = 5
"""Side of the correlation window in swept pixels."""
NOISE = 3.0
"""Grey-level noise that keeps flat windows from correlating."""
SMALL_STEP, LARGE_STEP = 0.03, 0.25
"""Penalties of semi-global matching for a step of one plane and for a jump; the cost lies in [0, 1]."""
MINIMUM_CORRELATION = 0.4


@dataclass(frozen=True, eq=False)
class SweptDepth:
    """Depth of one view of a pair, at the size of the view, in units of the baseline."""

    depth: Float[Tensor, "height width"]
    """z-depth; positive and finite everywhere, interpolated where nothing supports it."""
    support: Float[Tensor, "height width"]
    """0 where the depth is a guess, up to 1 where the images correlate and both sweeps agree."""


@dataclass(frozen=True, eq=False)
class _Side:
    """One view of a pair, reduced for the sweep."""

    grey: Float[Tensor, "h w"]
    intrinsics: Float[Tensor, "3 3"]
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Sweep:
    """Result of sweeping one side, at sweep resolution; planes are ``step`` apart in inverse depth."""

    inverse_depth: Float[Tensor, "h w"]
    correlation: Float[Tensor, "h w"]
    step: float


def sweep_both(
    image_i: UInt8[Tensor, "height_i width_i 3"],
    image_j: UInt8[Tensor, "height_j width_j 3"],
    focal_i: float,
    focal_j: float,
    j_from_i: Float[Tensor, "4 4"],
    points: Float[Tensor, "n 3"],
) -> tuple[SweptDepth, SweptDepth]:
    """Depth of both views of a pair, each swept against the other.

    Args:
        image_i: First view, RGB.
        image_j: Second view, RGB.
        focal_i: Focal length of view i in its pixels; the principal point is the centre.
        focal_j: Focal length of view j.
        j_from_i: Rigid transform between the cameras; depths come out in its unit of length.
        points: Triangulated points in the frame of camera i; their depths set the range of the sweeps.
    """
    j_from_i, points = j_from_i.float(), points.float()
    i_from_j = invert_rigid(j_from_i)
    side_i, side_j = _reduce(image_i, focal_i), _reduce(image_j, focal_j)
    swept_i = _sweep(side_i, side_j, j_from_i, points[:, 2])
    swept_j = _sweep(side_j, side_i, i_from_j, transform_points(j_from_i, points)[:, 2])
    support_i = _support(swept_i, side_i, swept_j, side_j, j_from_i)
    support_j = _support(swept_j, side_j, swept_i, side_i, i_from_j)
    return _finish(swept_i, support_i, side_i), _finish(swept_j, support_j, side_j)


def _reduce(image: UInt8[Tensor, "height width 3"], focal: float) -> _Side:
    height, width = image.shape[:2]
    scale = max(height, width) / LONG_SIDE
    h, w = round(height / scale), round(width / scale)
    grey = (image.float() @ torch.tensor([0.299, 0.587, 0.114]))[None, None]
    grey = F.interpolate(grey, size=(h, w), mode="area")[0, 0]
    centre = torch.tensor([(w - 1) / 2, (h - 1) / 2])
    return _Side(grey, intrinsics_matrix(focal / scale, centre), (height, width))


def _sweep(reference: _Side, source: _Side, source_from_reference: Tensor, depths: Tensor) -> _Sweep:
    """Inverse depth of the reference by sweeping planes parallel to its image, about a pixel apart in the source."""
    inverse = 1 / depths[depths > 0].clamp(min=1e-6)
    low, high = 0.6 * torch.quantile(inverse, 0.02), 1.3 * torch.quantile(inverse, 0.98)
    travel = float((high - low) * source.intrinsics[0, 0] * source_from_reference[:3, 3].norm())
    count = int(min(max(math.ceil(travel), 32), 128))
    planes = torch.linspace(float(low), float(high), count)
    correlation = _correlate(reference, source, source_from_reference, planes)
    cost = _aggregate((1 - correlation) / 2)
    index = cost.argmin(0)
    best = correlation.gather(0, index[None])[0]
    inverse_depth = planes[0] + (planes[1] - planes[0]) * _between_planes(cost, index)
    return _Sweep(inverse_depth, best, float(planes[1] - planes[0]))


def _correlate(
    reference: _Side, source: _Side, source_from_reference: Tensor, planes: Float[Tensor, "planes"]
) -> Float[Tensor, "planes h w"]:
    """Correlation in [-1, 1] of the reference with the source seen through each plane; 0 outside the source."""
    h, w = reference.grey.shape
    pixels = pixel_grid(h, w).reshape(-1, 2)
    centre, focal = reference.intrinsics[:2, 2], reference.intrinsics[0, 0]
    rays = torch.cat([(pixels - centre) / focal, torch.ones(len(pixels), 1)], 1)
    turned = rays @ source_from_reference[:3, :3].T
    moved = turned[None] + planes[:, None, None] * source_from_reference[:3, 3]
    seen = project(moved, source.intrinsics)
    size = torch.tensor([source.grey.shape[1], source.grey.shape[0]])
    grid = ((2 * seen + 1) / size - 1).reshape(len(planes), h, w, 2)
    inside = ((grid.abs() < 1).all(-1) & (moved[..., 2] > 0).reshape(len(planes), h, w)).float()[:, None]
    warped = F.grid_sample(source.grey.expand(len(planes), 1, -1, -1), grid, padding_mode="border", align_corners=False)
    image = reference.grey[None, None]
    mean_a, mean_b = _box(image), _box(warped)
    variance_a = (_box(image * image) - mean_a * mean_a).clamp(min=0) + NOISE**2
    variance_b = (_box(warped * warped) - mean_b * mean_b).clamp(min=0) + NOISE**2
    covariance = _box(image * warped) - mean_a * mean_b
    return (covariance / (variance_a * variance_b).sqrt() * inside)[:, 0]


def _box(images: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Mean over the correlation window."""
    return F.avg_pool2d(images, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)


def _aggregate(cost: Float[Tensor, "planes h w"]) -> Float[Tensor, "planes h w"]:
    """Sum of semi-global path costs from left, right, top and bottom."""
    by_column, by_row = cost.permute(2, 1, 0), cost.permute(1, 2, 0)
    total = _paths(torch.stack([by_column, by_column.flip(0)], 1))
    columns = total[:, 0] + total[:, 1].flip(0)
    total = _paths(torch.stack([by_row, by_row.flip(0)], 1))
    rows = total[:, 0] + total[:, 1].flip(0)
    return columns.permute(2, 1, 0) + rows.permute(2, 0, 1)


def _paths(cost: Float[Tensor, "steps 2 lines planes"]) -> Float[Tensor, "steps 2 lines planes"]:
    """Path costs along the first dimension (Hirschmueller 2008, equation 13)."""
    result = torch.empty_like(cost)
    result[0] = cost[0]
    for k in range(1, len(cost)):
        before = result[k - 1]
        cheapest = before.amin(-1, keepdim=True)
        padded = F.pad(before, (1, 1), value=math.inf)
        best = torch.minimum(before, torch.minimum(padded[..., :-2], padded[..., 2:]) + SMALL_STEP)
        result[k] = cost[k] + torch.minimum(best, cheapest + LARGE_STEP) - cheapest
    return result


def _between_planes(cost: Float[Tensor, "planes h w"], index: Tensor) -> Float[Tensor, "h w"]:
    """Plane index with the fraction at which a parabola through the three costs around the best has its minimum."""
    inner = index.clamp(1, len(cost) - 2)
    left, middle, right = (cost.gather(0, (inner + k)[None])[0] for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = torch.where(bend > 1e-6, 0.5 * (left - right) / bend.clamp(min=1e-6), torch.zeros_like(bend))
    return inner + offset.clamp(-1, 1)


def _support(one: _Sweep, side: _Side, other: _Sweep, other_side: _Side, other_from_one: Tensor) -> Tensor:
    """How far to believe each pixel of a sweep: its correlation where the other sweep has the same point, else 0."""
    h, w = one.inverse_depth.shape
    pixels = pixel_grid(h, w).reshape(-1, 2)
    rays = torch.cat([(pixels - side.intrinsics[:2, 2]) / side.intrinsics[0, 0], torch.ones(h * w, 1)], 1)
    seen = transform_points(other_from_one, rays / one.inverse_depth.clamp(min=1e-9).reshape(-1, 1))
    spot = project(seen, other_side.intrinsics)
    size = torch.tensor([other_side.grey.shape[1], other_side.grey.shape[0]])
    grid = ((2 * spot + 1) / size - 1)[None, None]
    there = F.grid_sample(other.inverse_depth[None, None], grid, mode="nearest", align_corners=False)[0, 0, 0]
    agrees = (there - 1 / seen[:, 2].clamp(min=1e-9)).abs() < 1.5 * other.step
    agrees &= (grid[0, 0].abs() < 1).all(-1) & (seen[:, 2] > 0)
    level = (one.correlation - MINIMUM_CORRELATION) / (1 - MINIMUM_CORRELATION)
    return torch.where(agrees.reshape(h, w), level.clamp(min=0), torch.zeros_like(level))


def _finish(swept: _Sweep, support: Float[Tensor, "h w"], side: _Side) -> SweptDepth:
    """Fill what has no support from around it and bring both maps to the size of the view."""
    inverse = _fill(swept.inverse_depth, support)
    spread = F.max_pool2d(inverse[None, None], 3, 1, 1) + F.max_pool2d(-inverse[None, None], 3, 1, 1)
    smooth = (spread[0, 0] < torch.maximum(4 * torch.tensor(swept.step), 0.2 * inverse)).float()
    maps = torch.stack([inverse, support * smooth])[None]
    inverse, support = F.interpolate(maps, size=side.size, mode="bilinear", align_corners=False)[0]
    return SweptDepth(1 / inverse, support)


def _fill(values: Float[Tensor, "h w"], weights: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Values where weights are positive; elsewhere a smooth interpolation (pull-push over a pyramid)."""
    value, weight = (values * weights)[None, None], weights[None, None]
    levels = [(value, weight)]
    while min(value.shape[-2:]) > 1:
        value, weight = (F.avg_pool2d(x, 2, ceil_mode=True) for x in (value, weight))
        levels.append((value, weight))
    value, weight = levels.pop()
    filled = value / weight.clamp(min=1e-9)
    if not float(weight.max()) > 0:
        return torch.full_like(values, float(values.median()))
    for value, weight in reversed(levels):
        coarse = F.interpolate(filled, size=value.shape[-2:], mode="bilinear", align_corners=False)
        share = (weight / 0.05).clamp(max=1)
        filled = share * value / weight.clamp(min=1e-9) + (1 - share) * coarse
    return filled[0, 0]
