"""A start for sparse alignment: where every pair puts its two views, averaged robustly over all pairs.

The published start stands all cameras in one place and lets Adam find the way. Here each pair gets the similarity
between its matched points in closed form, all pairs at once, and rotations, sizes and centres of the views are averaged
as in dense alignment, so that no single pair is trusted.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.align.anchored import AnchoredMatches
from unposed.align.initialise import (
    WORST_ANGLE,
    WORST_SHIFT,
    average_potentials,
    average_rotations,
    cycle_support,
)
from unposed.align.sparse_objective import match_rays
from unposed.geometry.rotations import nearest_rotation, rotation_angle
from unposed.geometry.transforms import rigid

_ROUNDS = 20
_AGREES = 0.1
"""A match agrees with a pair's similarity when its points are closer than this share of their depth."""
_LEAST_AGREEING = 0.15
"""Pairs with a smaller share of agreeing matches are dropped."""


@dataclass(frozen=True, eq=False)
class SparseStart:
    """Cameras and sizes of the views of one component."""

    world_from_camera: Float[Tensor, "views 4 4"]
    log_size: Float[Tensor, "views"]
    """Log of the world length of a unit of every canonical view; their mean is 0."""
    intrinsics: Float[Tensor, "views 3 3"]
    consistent: Bool[Tensor, "pairs"]
    """False for pairs that contradict the averaged cameras."""


@dataclass(frozen=True, eq=False)
class PairSimilarities:
    """Frame of view i from frame of view j, of every pair (i, j)."""

    rotation: Float[Tensor, "pairs 3 3"]
    scale: Float[Tensor, "pairs"]
    translation: Float[Tensor, "pairs 3"]
    """In units of canonical view i."""
    agreeing: Float[Tensor, "pairs"]
    """Share of the matches that agree."""
    depth: Float[Tensor, "pairs"]
    """Typical depth of the matches in view i."""


def start_cameras(data: AnchoredMatches, intrinsics: Float[Tensor, "views 3 3"]) -> SparseStart:
    """Average what all pairs say; every pair needs a match. View 0 stands at the origin."""
    found = pair_similarities(data, camera_points(data, intrinsics))
    i, j = data.pairs.unbind(1)
    views, number = len(data.sizes), torch.bincount(data.pair, minlength=len(data.pairs))
    weight = (found.agreeing * number).clamp(min=1e-6)
    support = cycle_support(data.pairs, found.rotation, weight, views)
    rotations = average_rotations(data.pairs, found.rotation, weight, weight * (support + 1e-3), views)
    drift = rotation_angle(rotations[j].mT @ rotations[i] @ found.rotation).rad2deg()
    steady = weight * (drift < WORST_ANGLE).float().clamp(min=1e-3)
    log_size = -average_potentials(data.pairs, found.scale.log()[:, None], steady, views)[:, 0]
    log_size = log_size - log_size.mean()
    size = log_size.exp()
    steps = size[i, None] * (rotations[i] @ found.translation[..., None]).squeeze(-1)
    centres = -average_potentials(data.pairs, steps, steady, views)
    shift = (centres[j] - centres[i] - steps).norm(dim=-1) / (size[i] * found.depth)
    consistent = (found.agreeing >= _LEAST_AGREEING) & (drift <= max(WORST_ANGLE, 5 * float(drift.median())))
    consistent &= shift <= max(WORST_SHIFT, 5 * float(shift.median()))
    return SparseStart(rigid(rotations, centres), log_size, intrinsics, consistent)


def camera_points(data: AnchoredMatches, intrinsics: Float[Tensor, "views 3 3"]) -> Float[Tensor, "matches 2 3"]:
    """Points of both sides of every match in their own cameras, in units of their canonical views."""
    focal = intrinsics.diagonal(dim1=1, dim2=2)[:, :2].mean(1)
    moved = data.typical_depth * (focal / data.base_focal - 1)  # a longer focal means that everything is further away
    depth = data.core_depth + moved[data.view_of_anchor]
    return match_rays(data, intrinsics) * depth[data.anchor][..., None]


def pair_similarities(data: AnchoredMatches, points: Float[Tensor, "matches 2 3"]) -> PairSimilarities:
    """Robust closed-form similarities of all pairs together, by reweighting (Umeyama's fit in every round).

    Errors count relative to the depth of the point; the weight falls off ever faster, from that of an L1 norm to one
    that ignores what is further than a tenth of the depth.
    """
    count = len(data.pairs)

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(count, *values.shape[1:]).index_add_(0, data.pair, values)

    target, source = points.unbind(1)
    nearness = 1 / target[:, 2].clamp(min=1e-6)
    base = data.confidence * nearness.square()
    weight, error = base, torch.zeros(len(base))
    for step in range(_ROUNDS):
        share = weight / total(weight)[data.pair].clamp(min=1e-20)
        mean_target, mean_source = total(share[:, None] * target), total(share[:, None] * source)
        t, s = target - mean_target[data.pair], source - mean_source[data.pair]
        covariance = total(share[:, None, None] * t[:, :, None] * s[:, None, :])
        rotation = nearest_rotation(covariance)
        variance = total(share * s.square().sum(-1)).clamp(min=1e-20)
        scale = ((rotation * covariance).sum((1, 2)) / variance).clamp(min=1e-6)
        moved = scale[data.pair, None] * (rotation[data.pair] @ s[..., None]).squeeze(-1)
        error = (moved - t).norm(dim=-1) * nearness
        if step < _ROUNDS // 2:
            weight = base / error.clamp(min=1e-3)
        else:
            weight = base * (1 + (error / _AGREES).square()) ** -2
    translation = mean_target - scale[:, None] * (rotation @ mean_source[..., None]).squeeze(-1)
    number = torch.bincount(data.pair, minlength=count).clamp(min=1)
    agreeing = total((error < _AGREES).float()) / number
    return PairSimilarities(rotation, scale, translation, agreeing, mean_target[:, 2].abs())
