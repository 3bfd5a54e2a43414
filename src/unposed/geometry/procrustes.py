"""Similarity between two sets of corresponding points: weighted closed form, and robust by RANSAC."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.geometry.transforms import fit_similarity, rigid

SAMPLES = 256
"""Samples of three points that are tried: with half of the points wrong, all fail once in 10^14 runs."""
SCORED_POINTS = 2000
"""Points, evenly picked, that a sample is scored on."""
REFITS = 5
"""Rounds of fitting to the inliers and finding the inliers of the fit."""


@dataclass(frozen=True, eq=False)
class Procrustes:
    """``target = scale * rotation source + translation``."""

    scale: float
    target_from_source: Float[Tensor, "4 4"]
    """Rigid part (float64): the rotation, and the translation in units of the target."""
    inliers: Bool[Tensor, "n"]
    """Points that agree; all without RANSAC."""


def solve_procrustes(
    source: Float[Tensor, "n 3"],
    target: Float[Tensor, "n 3"],
    weights: Float[Tensor, "n"] | None = None,
    max_error: float | None = None,
) -> Procrustes | None:
    """Similarity that moves ``source`` onto ``target`` best; None for fewer than 3 points, or where no 3 agree.

    Without ``max_error`` it is the closed form (Umeyama 1991; the Procrustes alignment of DUSt3R, section 3.3), which
    minimises the weighted squared distances and which wrong points pull away. With it, RANSAC finds the points that
    agree within ``max_error`` times their distance from the origin of the target (its camera: pointmaps err in
    proportion to depth), and the closed form is fitted to them with weights to match. Deterministic.
    """
    source, target = source.double(), target.double()
    weights = torch.ones(len(source), dtype=torch.float64) if weights is None else weights.double()
    if int((weights > 0).sum()) < 3:
        return None
    if max_error is None:
        scale, rotation, translation = fit_similarity(source, target, weights)
        return Procrustes(float(scale), rigid(rotation, translation), weights > 0)
    distance = target.norm(dim=-1).clamp(min=1e-12)
    fit = _best_sample(source, target, weights, distance, max_error)
    inliers = torch.zeros(len(source), dtype=torch.bool)
    for _ in range(REFITS):
        inliers = (_relative_error(*fit, source, target, distance) < max_error) & (weights > 0)
        if int(inliers.sum()) < 3:
            return None
        relative = weights[inliers] / distance[inliers] ** 2
        fit = fit_similarity(source[inliers], target[inliers], relative)
    scale, rotation, translation = fit
    return Procrustes(float(scale), rigid(rotation, translation), inliers)


def _best_sample(
    source: Tensor, target: Tensor, weights: Tensor, distance: Tensor, max_error: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The similarity of three points that the largest weight of all points agrees with."""
    generator = torch.Generator().manual_seed(0)
    usable = weights.nonzero()[:, 0]
    sample = usable[torch.randint(len(usable), (SAMPLES, 3), generator=generator)]
    scale, rotation, translation = fit_similarity(source[sample], target[sample])
    scored = usable[:: max(1, len(usable) // SCORED_POINTS)]
    moved = scale[:, None, None] * (source[scored] @ rotation.transpose(-1, -2)) + translation[:, None]
    error = (moved - target[scored]).norm(dim=-1) / distance[scored]
    score = ((1 - error / max_error).clamp(min=0) * weights[scored]).sum(-1)
    best = int(score.nan_to_num(0.0).argmax())
    return scale[best], rotation[best], translation[best]


def _relative_error(
    scale: Tensor, rotation: Tensor, translation: Tensor, source: Tensor, target: Tensor, distance: Tensor
) -> Float[Tensor, "n"]:
    return (scale * source @ rotation.T + translation - target).norm(dim=-1) / distance
