"""Rigid and similarity transforms as 4x4 matrices, named ``target_from_source``."""

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.geometry.rotations import nearest_rotation


def rigid(rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4 4"]:
    """4x4 transform ``[rotation | translation]``; a scaled rotation makes it a similarity."""
    transform = torch.zeros(*rotation.shape[:-2], 4, 4, dtype=rotation.dtype, device=rotation.device)
    transform[..., :3, :3] = rotation
    transform[..., :3, 3] = translation
    transform[..., 3, 3] = 1
    return transform


def invert_rigid(transform: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """``source_from_target`` of a rigid ``target_from_source``, without a matrix inverse."""
    rotation = transform[..., :3, :3].transpose(-1, -2)
    return rigid(rotation, -(rotation @ transform[..., :3, 3:]).squeeze(-1))


def transform_points(
    transform: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*batch_points 3"]
) -> Float[Tensor, "*batch_points 3"]:
    """Apply a 4x4 transform to points; the batch dimensions of both broadcast from the left.

    ``(4, 4)`` with ``(..., 3)`` moves every point; ``(n, 4, 4)`` with ``(n, h, w, 3)`` moves map n by transform n.
    """
    extra = points.dim() - transform.dim() + 1
    rotation, translation = transform[..., :3, :3], transform[..., :3, 3]
    if transform.dim() == 2:
        return points @ rotation.T + translation
    flat = points.reshape(*points.shape[: points.dim() - 1 - extra], -1, 3)
    moved = flat @ rotation.transpose(-1, -2) + translation.unsqueeze(-2)
    return moved.reshape(points.shape)


def fit_similarity(
    source: Float[Tensor, "*batch n 3"],
    target: Float[Tensor, "*batch n 3"],
    weights: Float[Tensor, "*batch n"] | None = None,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """Scale s, rotation R, translation t that minimise ``sum w |s R source + t - target|^2`` (Umeyama 1991)."""
    if weights is None:
        weights = torch.ones_like(source[..., 0])
    weights = (weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)).unsqueeze(-1)
    mean_source, mean_target = (weights * source).sum(-2), (weights * target).sum(-2)
    centred_source, centred_target = source - mean_source.unsqueeze(-2), target - mean_target.unsqueeze(-2)
    covariance = (weights * centred_target).transpose(-1, -2) @ centred_source
    rotation = nearest_rotation(covariance)
    variance = (weights * centred_source.square()).sum((-1, -2))
    scale = (rotation * covariance).sum((-1, -2)) / variance.clamp(min=1e-20)
    return scale, rotation, mean_target - scale.unsqueeze(-1) * (rotation @ mean_source.unsqueeze(-1)).squeeze(-1)
