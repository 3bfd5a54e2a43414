"""Relative pose errors and the area under their accuracy curve, in degrees."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.geometry.rotations import rotation_angle


def rotation_error(
    predicted: Float[Tensor, "*batch 3 3"], truth: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch"]:
    """Angle of the rotation between two rotations, degrees in [0, 180]."""
    return torch.rad2deg(rotation_angle(truth.transpose(-1, -2) @ predicted))


def direction_error(
    predicted: Float[Tensor, "*batch 3"], truth: Float[Tensor, "*batch 3"], folded: bool = False
) -> Float[Tensor, "*batch"]:
    """Angle between two translation directions, degrees in [0, 180]; a zero vector has no direction: 180.

    ``folded`` takes t and -t as equal (at most 90 degrees), the tradition of methods with an essential matrix.
    """
    sine = torch.linalg.cross(predicted, truth).norm(dim=-1)
    cosine = (predicted * truth).sum(-1)
    angle = torch.rad2deg(torch.atan2(sine, cosine))
    if folded:
        angle = torch.minimum(angle, 180 - angle)
    known = (predicted.norm(dim=-1) > 0) & (truth.norm(dim=-1) > 0)
    return torch.where(known, angle, 180.0)


def pose_error(
    predicted: Float[Tensor, "*batch 4 4"], truth: Float[Tensor, "*batch 4 4"], folded: bool = False
) -> Float[Tensor, "*batch"]:
    """The larger of rotation and translation-direction error of relative poses, degrees."""
    rotation = rotation_error(predicted[..., :3, :3], truth[..., :3, :3])
    return torch.maximum(rotation, direction_error(predicted[..., :3, 3], truth[..., :3, 3], folded))


def pose_auc(errors: Sequence[float] | Float[np.ndarray, "pairs"], thresholds: Sequence[float]) -> list[float]:
    """Exact area under the curve of recall over error, for each threshold, as a fraction of its maximum.

    The protocol of SuperGlue and LoFTR: the curve joins (0, 0) and (i-th smallest error, i / n), is cut at the
    threshold (an error equal to it is outside) and integrated by trapezoids. A failed pair has an infinite error.
    """
    ordered = np.sort(np.asarray(errors, np.float64))
    if len(ordered) == 0:
        return [float("nan")] * len(thresholds)
    ordered = np.concatenate([[0.0], ordered])
    recall = np.arange(len(ordered)) / (len(ordered) - 1)
    areas = []
    for threshold in thresholds:
        inside = np.searchsorted(ordered, threshold)
        x = np.append(ordered[:inside], threshold)
        y = np.append(recall[:inside], recall[inside - 1])
        areas.append(float(np.trapezoid(y, x) / threshold))
    return areas
