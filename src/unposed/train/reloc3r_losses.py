"""Losses of Reloc3r: angles between predicted and true relative poses (Reloc3r, section 3.2), in radians."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.geometry.transforms import invert_rigid

Poses = Float[Tensor, "batch 4 4"]
_EPSILON = 1e-6
"""Added to lengths of translations, and kept between cosines and +-1: angles below 0.08 degrees have no gradient."""


class PoseLoss(NamedTuple):
    """The loss and what it is made of: mean angles of rotation and of translation direction of both predictions."""

    loss: Float[Tensor, ""]
    """Sum of the four means."""
    rotation1: Float[Tensor, ""]
    direction1: Float[Tensor, ""]
    rotation2: Float[Tensor, ""]
    direction2: Float[Tensor, ""]


def pose_loss(pose1: Poses, pose2: Poses, world_from_camera1: Poses, world_from_camera2: Poses) -> PoseLoss:
    """Loss of the predicted poses "camera 1 to camera 2" (``pose1``) and back (``pose2``) of a batch of pairs.

    Lengths of translations play no part. A pair whose true cameras stand in one place costs a right angle, without
    gradient.
    """
    truth2 = invert_rigid(world_from_camera1) @ world_from_camera2
    truth1 = invert_rigid(world_from_camera2) @ world_from_camera1
    terms = [
        angle(predicted, truth).mean()
        for predicted, truth in ((pose1, truth1), (pose2, truth2))
        for angle in (rotation_angles, direction_angles)
    ]
    return PoseLoss(torch.stack(terms).sum(), *terms)


def rotation_angles(predicted: Poses, truth: Poses) -> Float[Tensor, "batch"]:
    """Angle between the rotations of poses."""
    product = predicted[:, :3, :3].mT @ truth[:, :3, :3]
    return _angle((product.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2)


def direction_angles(predicted: Poses, truth: Poses) -> Float[Tensor, "batch"]:
    """Angle between the translations of poses."""
    a, b = (pose[:, :3, 3] / (pose[:, :3, 3].norm(dim=-1, keepdim=True) + _EPSILON) for pose in (predicted, truth))
    return _angle((a * b).sum(-1))


def _angle(cosine: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    return cosine.clamp(-1 + _EPSILON, 1 - _EPSILON).acos()
