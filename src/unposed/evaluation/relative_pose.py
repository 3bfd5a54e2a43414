"""Relative poses between all cameras of a set: errors of the pairs, and the shares that papers make of them.

Angles are degrees. Two numbers are called AUC in papers; here they have two names: ``pose_auc`` (trapezoids under the
exact curve, SuperGlue) and ``mean_accuracy`` (mean of the recalls at 1, 2, ... degrees, PoseDiffusion).
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.evaluation.pose import direction_error, rotation_error
from unposed.geometry.transforms import invert_rigid

Direction = Literal["unfolded", "folded", "pose-diffusion"]
"""How translation directions are compared: up to 180 degrees; t and -t alike; that with 90 for a zero vector."""

Errors = Float[np.ndarray, "pairs"]


def translation_error(
    predicted: Float[Tensor, "*batch 3"], truth: Float[Tensor, "*batch 3"], direction: Direction = "unfolded"
) -> Float[Tensor, "*batch"]:
    """Angle between translation directions by the named variant.

    A zero vector has no direction: 180 degrees. ``pose-diffusion`` is the published formula, which gives 90 there and,
    in float32, is wrong by some hundredths of a degree near 0.
    """
    if direction != "pose-diffusion":
        return direction_error(predicted, truth, folded=direction == "folded")
    a, b = (t / (t.norm(dim=-1, keepdim=True) + 1e-15) for t in (predicted, truth))
    sine2 = (1 - (a * b).sum(-1).square()).clamp(min=1e-15)
    return torch.rad2deg((1 - sine2).clamp(min=0).sqrt().arccos())


def pairwise_errors(
    predicted: Float[Tensor, "cameras 4 4"],
    truth: Float[Tensor, "cameras 4 4"],
    direction: Direction = "pose-diffusion",
) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"]]:
    """Rotation and translation-direction errors of all pairs i < j, in lexicographic order.

    Both arguments are ``world_from_camera``, each in a world frame and scale of its own. Compared is the pose of camera
    j in camera i, as the published multi-view code does; the other way round the translation angles differ.
    """
    i, j = torch.triu_indices(len(truth), len(truth), 1)
    found, want = (invert_rigid(poses[i]) @ poses[j] for poses in (predicted.double(), truth.double()))
    rotation = rotation_error(found[:, :3, :3], want[:, :3, :3])
    return rotation, translation_error(found[:, :3, 3], want[:, :3, 3], direction)


def share_below(errors: Errors, threshold: float) -> float:
    """RRA or RTA: the fraction of pairs whose error is less than the threshold."""
    return float((np.asarray(errors) < threshold).mean())


def mean_accuracy(
    rotation: Errors, translation: Errors, threshold: int, binning: Literal["unit", "histc"] = "unit"
) -> float:
    """mAA (also called AUC in the line of PoseDiffusion): mean over 1, 2, ..., threshold of the recall at that error.

    The error of a pair is the larger of its two. ``unit`` bins are [0, 1), [1, 2), ..., the last one closed, as in
    NumPy's histogram; ``histc`` is what some PyTorch code computes instead, ``threshold + 1`` bins over the same range,
    here only to compare with numbers made that way.
    """
    worst = np.maximum(rotation, translation)
    bins = threshold if binning == "unit" else threshold + 1
    counts, _ = np.histogram(worst, np.linspace(0, threshold, bins + 1))
    return float(np.cumsum(counts / len(worst)).mean())
