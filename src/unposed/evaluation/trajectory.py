"""Errors of a camera path: absolute (ATE) and relative (RPE), after the best alignment, as evo computes them.

Poses are ``world_from_camera``; lengths are in the unit of the true path.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.geometry.pose_errors import rotation_error
from unposed.geometry.rigid_fit import fit_rigid
from unposed.geometry.similarity import move_camera
from unposed.geometry.transforms import fit_similarity, invert_rigid

Alignment = Literal["sim3", "se3", "none"]
Poses = Float[Tensor, "frames 4 4"]


class DegeneratePathError(ValueError):
    """Camera centres on one line or in one place: no alignment is defined."""


@dataclass(frozen=True)
class TrajectoryErrors:
    """Root mean squares over a path."""

    absolute: float
    """ATE: distance of aligned camera centres from the true ones."""
    relative_translation: float
    """RPE: length of the translation between predicted and true motion from frame to frame."""
    relative_rotation_deg: float
    """RPE: angle of the rotation between them, degrees."""


def trajectory_errors(
    predicted: Poses, truth: Poses, alignment: Alignment = "sim3", delta: int = 1
) -> TrajectoryErrors:
    """ATE and RPE of a path with a true pose for each of its frames; RPE over all pairs ``delta`` frames apart.

    Raises:
        DegeneratePathError: fewer than three frames, or one of the paths leaves its alignment undefined.
    """
    truth = truth.double()
    aligned = align_path(predicted.double(), truth, alignment)
    centre = (aligned[:, :3, 3] - truth[:, :3, 3]).norm(dim=-1)
    true_motion, motion = (invert_rigid(poses[:-delta]) @ poses[delta:] for poses in (truth, aligned))
    difference = invert_rigid(true_motion) @ motion
    angle = rotation_error(motion[:, :3, :3], true_motion[:, :3, :3])
    return TrajectoryErrors(_rms(centre), _rms(difference[:, :3, 3].norm(dim=-1)), _rms(angle))


def align_path(predicted: Poses, truth: Poses, alignment: Alignment) -> Poses:
    """The predicted path moved onto the true one by least squares over the camera centres (Umeyama 1991).

    Raises:
        DegeneratePathError: fewer than three frames, or the centres of a path do not span a plane.
    """
    if alignment == "none":
        return predicted
    source, target = predicted[:, :3, 3], truth[:, :3, 3]
    if not (_spans_a_plane(source) and _spans_a_plane(target)):
        raise DegeneratePathError("the camera centres lie on a line or in one place, which aligns no path")
    if alignment == "se3":
        moved = fit_rigid(source, target)
        return moved @ predicted
    return move_camera(*fit_similarity(source, target), predicted)


def _spans_a_plane(centres: Float[Tensor, "frames 3"]) -> bool:
    """Whether the rotation that aligns the centres is determined: two of their singular values are not zero."""
    if len(centres) < 3:
        return False
    values = torch.linalg.svdvals(centres - centres.mean(0))
    return bool(values[1] > 1e-9 * max(float(centres.abs().max()), 1e-12))


def _rms(values: Float[Tensor, "n"]) -> float:
    return float(values.square().mean().sqrt())
