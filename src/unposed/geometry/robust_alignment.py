"""Scale and shift that bring predicted depth or points onto others, robustly: MoGe's optimal alignment.

All minimise a weighted, optionally truncated L1 distance (MoGe, section 3.2 and supplement), per row of a batch,
exactly. Scales may come out negative; callers decide what that means. Gradients flow through the few elements that the
optimum goes through, weights are constants.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from unposed.geometry.anchor_search import Elements, best_anchor, block_size
from unposed.geometry.truncated_l1 import EPSILON, fit_scale

_SMALL = 160
"""Problems of up to so many elements are solved together, all anchors of all of them, in blocks."""

Weights = Float[Tensor, "batch n"]
Points = Float[Tensor, "batch n 3"]


class PointAlignment(NamedTuple):
    """``scale * source + shift`` is the target."""

    scale: Float[Tensor, "batch"]
    shift: Float[Tensor, "batch 3"]


class DepthAlignment(NamedTuple):
    """``scale * source + shift`` is the target."""

    scale: Float[Tensor, "batch"]
    shift: Float[Tensor, "batch"]


def align_depth_scale(
    source: Weights, target: Weights, weights: Weights, truncation: float | None = None
) -> Float[Tensor, "batch"]:
    """Scale of depths."""
    return fit_scale(source, target, weights, truncation).scale


def align_depth_affine(
    source: Weights, target: Weights, weights: Weights, truncation: float | None = None
) -> DepthAlignment:
    """Scale and shift of depths."""
    one = torch.ones(1, dtype=torch.bool, device=source.device)
    first, _, second = _search(source[..., None], target[..., None], weights, one, truncation)
    source1, source2, target1, target2 = (
        values.gather(1, index[:, None])[:, 0] for values in (source, target) for index in (first, second)
    )
    run = source2 - source1
    scale = (target2 - target1) / torch.where(run == 0, EPSILON, run)
    return DepthAlignment(scale, target1 - scale * source1)


def fit_depth_affine(source: Weights, target: Weights, weights: Weights | None = None) -> DepthAlignment:
    """Scale and shift by least squares; the rows of the source are weighted by the root, the constant's are not."""
    root = torch.ones_like(source) if weights is None else weights.sqrt()
    columns = torch.stack([root * source, torch.ones_like(source)], -1)
    solution = torch.linalg.lstsq(columns, (root * target)[..., None]).solution[..., 0]
    return DepthAlignment(solution[:, 0], solution[:, 1])


def align_points_scale(
    source: Points, target: Points, weights: Weights, truncation: float | None = None
) -> Float[Tensor, "batch"]:
    """Scale of points about the origin; every coordinate is a term of its own."""
    repeated = weights[..., None].expand_as(source).flatten(1)
    return fit_scale(source.flatten(1), target.flatten(1), repeated, truncation).scale


def align_points_scale_z_shift(
    source: Points, target: Points, weights: Weights, truncation: float | None = None
) -> PointAlignment:
    """Scale and a shift along z: what MoGe's predictions leave open."""
    return _align_points(source, target, weights, [False, False, True], truncation)


def align_points_scale_xyz_shift(
    source: Points, target: Points, weights: Weights, truncation: float | None = None
) -> PointAlignment:
    """Scale and a free shift, for parts of a scene."""
    return _align_points(source, target, weights, [True, True, True], truncation)


def align_points_z_shift(
    source: Points, target: Points, weights: Weights, truncation: float | None = None
) -> Float[Tensor, "batch 3"]:
    """Shift along z alone."""
    gap = (target - source)[..., 2]
    z = fit_scale(torch.ones_like(gap), gap, weights, truncation).scale
    return torch.stack([torch.zeros_like(z), torch.zeros_like(z), z], -1)


def align_points_xyz_shift(
    source: Points, target: Points, weights: Weights, truncation: float | None = None
) -> Float[Tensor, "batch 3"]:
    """Shift alone, each coordinate for itself."""
    gaps = (target - source).mT.flatten(0, 1)
    repeated = weights[:, None].expand(-1, 3, -1).flatten(0, 1)
    return fit_scale(torch.ones_like(gaps), gaps, repeated, truncation).scale.unflatten(0, (-1, 3))


def _align_points(
    source: Points, target: Points, weights: Weights, anchored: list[bool], truncation: float | None
) -> PointAlignment:
    """Scale from the anchor and one more element, shift from the anchor, in the coordinates that are anchored."""
    mask = torch.tensor(anchored, device=source.device)
    first, coordinate, second = _search(source, target, weights, mask, truncation)
    rows = torch.arange(len(source), device=source.device)
    anchor_source, anchor_target = (torch.where(mask, values[rows, first], 0.0) for values in (source, target))
    run = source[rows, second, coordinate] - anchor_source[rows, coordinate]
    rise = target[rows, second, coordinate] - anchor_target[rows, coordinate]
    scale = rise / torch.where(run == 0, 1.0, run)
    return PointAlignment(scale, anchor_target - scale[:, None] * anchor_source)


@torch.no_grad()
def _search(
    source: Float[Tensor, "batch n coordinates"],
    target: Float[Tensor, "batch n coordinates"],
    weights: Weights,
    anchored: Bool[Tensor, "coordinates"],
    truncation: float | None,
) -> tuple[Int64[Tensor, "batch"], Int64[Tensor, "batch"], Int64[Tensor, "batch"]]:
    """For every row the anchor, and coordinate and number of the second element without residual."""
    source, target, weights = (values.detach().double() for values in (source, target, weights))
    if source.shape[1] <= _SMALL:
        return _every_anchor(source, target, weights, anchored, truncation)
    found = []
    for x, y, w in zip(source.mT, target.mT, weights, strict=True):
        counts = (w > 0).nonzero()[:, 0]
        if len(counts) == 0:
            found.append((0, 0, 0))
            continue
        best = best_anchor(Elements(x[:, counts], y[:, counts], w[counts], anchored), truncation)
        found.append((int(counts[best.anchor]), best.coordinate, int(counts[best.element])))
    anchor, coordinate, element = torch.tensor(found, device=source.device).unbind(1)
    return anchor, coordinate, element


def _every_anchor(
    source: Float[Tensor, "batch n coordinates"],
    target: Float[Tensor, "batch n coordinates"],
    weights: Weights,
    anchored: Bool[Tensor, "coordinates"],
    truncation: float | None,
) -> tuple[Int64[Tensor, "batch"], Int64[Tensor, "batch"], Int64[Tensor, "batch"]]:
    """As ``_search``, by solving for every anchor of positive weight of every row."""
    batch, n, channels = source.shape
    row, anchor = (weights > 0).nonzero(as_tuple=True)
    losses, indices = [], []
    for part in torch.arange(len(row), device=row.device).split(max(1, block_size(source.device) // (n * channels))):
        r, a = row[part], anchor[part]
        x, y = (
            (values[r] - torch.where(anchored, values[r, a], 0.0)[:, None]).flatten(1) for values in (source, target)
        )
        fit = fit_scale(x, y, weights[r][..., None].expand(-1, -1, channels).flatten(1), truncation)
        losses.append(fit.loss)
        indices.append(fit.element)
    loss = torch.full((batch, n), torch.inf, dtype=source.dtype, device=source.device)
    index = torch.zeros(batch, n, dtype=torch.int64, device=source.device)
    if len(row):
        loss[row, anchor], index[row, anchor] = torch.cat(losses), torch.cat(indices)
    first = loss.argmin(1)
    second = index.gather(1, first[:, None])[:, 0]
    return first, second % channels, second // channels
