"""Which crops of two large photos to look at again, closer (MASt3R, section 3.4 and its released code).

Coarse matches of the whole photos say which windows of one show what windows of the other do. Boxes are integers
(left, top, right, bottom) in the pixels of the full photo.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

MIN_MATCHES = 10
"""Windows with fewer coarse matches are not looked at."""
COVERED = 0.9
"""Share of the attainable weight of all matches after which no more windows are chosen."""
_PATCH = 16
_MIN_SPREAD = 20.0
_SPREAD = (0.1, 0.9)

Boxes = Int[Tensor, "n 4"]
Points = Float[Tensor, "n 2"]
Size = tuple[int, int]
"""(height, width)."""


def overlapping_windows(size: Size, long_side: int, overlap: float = 0.5) -> Boxes:
    """Windows of the photo's shape and that long side, by rows, evenly spaced, overlapping by ``overlap`` or more."""
    window = [_PATCH * int(side * long_side / max(size) // _PATCH) for side in size]
    starts = []
    for side, extent in zip(size, window, strict=True):
        count = 1 if extent >= side else math.ceil((side - extent) / (extent * (1 - overlap))) + 1
        starts.append(torch.linspace(0, max(0, side - extent), count, dtype=torch.float64).round().long())
    top, left = (grid.flatten() for grid in torch.meshgrid(*starts, indexing="ij"))
    return torch.stack([left, top, left + window[1], top + window[0]], 1)


def fit_windows(windows: Float[Tensor, "n 4"], size: Size, forced: Size | None = None) -> Boxes:
    """Windows brought to a shape the network takes, about their centres, then moved inside the photo.

    ``forced`` is the shape; without it the shorter side becomes three quarters of the longer one.
    """
    windows = windows.double()
    centre = (windows[:, :2] + windows[:, 2:]) / 2
    if forced is None:
        extent = windows[:, 2:] - windows[:, :2]
        longer = extent.amax(1, keepdim=True)
        extent = torch.where(extent == longer, longer, longer * 3.01 / 4)
    else:
        extent = torch.tensor([forced[1], forced[0]], dtype=torch.float64).expand(len(windows), 2)
    extent = extent.floor()
    low = (centre - extent / 2).floor()
    limit = torch.tensor([size[1], size[0]], dtype=torch.float64)
    low = torch.minimum(low, limit - extent).clamp(min=0)
    return torch.cat([low, torch.minimum(low + extent, limit)], 1).long()


def choose_windows(
    points_a: Points,
    points_b: Points,
    windows_a: Boxes,
    windows_b: Boxes,
    size_a: Size,
    size_b: Size,
    forced_a: Size | None = None,
    forced_b: Size | None = None,
) -> tuple[Boxes, Boxes]:
    """Pairs of windows that together show most coarse matches well, in the order of their choice."""
    own_a, partners_b, weight_a = _partners(points_a, points_b, windows_a, size_b, forced_b)
    own_b, partners_a, weight_b = _partners(points_b, points_a, windows_b, size_a, forced_a)
    chosen = _cover(torch.cat([weight_a, weight_b]))
    return torch.cat([own_a, partners_a])[chosen], torch.cat([partners_b, own_b])[chosen]


def _partners(
    points: Points, others: Points, windows: Boxes, size: Size, forced: Size | None
) -> tuple[Boxes, Boxes, Float[Tensor, "windows points"]]:
    """Windows with enough matches, for each the window of the other photo about the matched points, and how well
    the two show every match: matches outside the window do not count."""
    inside = ((points[None] >= windows[:, None, :2]) & (points[None] < windows[:, None, 2:])).all(-1)
    kept = inside.sum(1) >= MIN_MATCHES
    windows, inside = windows[kept], inside[kept]
    found = [_partner(points[i], others[i], window, size, forced) for i, window in zip(inside, windows, strict=True)]
    partners = torch.cat(found) if found else windows
    return windows, partners, _centrality(points, windows) * _centrality(others, partners) * inside


def _cover(weight: Float[Tensor, "windows points"]) -> list[int]:
    """Greedy choice of rows until most of what all together could give every point is covered."""
    goal = COVERED * float(weight.amax(0).sum()) if len(weight) else 0.0
    chosen: list[int] = []
    covered = 0.0
    while covered < goal:
        best = int(weight.sum(1).argmax())
        covered += float(weight[best].sum())
        chosen.append(best)
        weight = (weight - weight[best]).clamp(min=0)
    return chosen


def _partner(points: Points, others: Points, window: Int[Tensor, "4"], size: Size, forced: Size | None) -> Boxes:
    scale = _spread(others) / _spread(points)
    half = (window[2:] - window[:2]).double() * scale / 2
    centre = others.double().mean(0)
    return fit_windows(torch.cat([centre - half, centre + half])[None], size, forced)


def _spread(points: Points) -> Float[Tensor, "2"]:
    low, high = points.double().quantile(torch.tensor(_SPREAD, dtype=torch.float64), 0)
    return (high - low).clamp(min=_MIN_SPREAD)


def _centrality(points: Points, boxes: Boxes) -> Float[Tensor, "boxes points"]:
    """How close to the middle of each box points are: 1 there, falling as a Gaussian of the offset by its size."""
    extent = (boxes[:, 2:] - boxes[:, :2]).double()
    offset = (points.double()[None] - (boxes[:, :2] + boxes[:, 2:])[:, None] / 2) / extent[:, None]
    return (-2 * offset.square().sum(-1)).exp()
