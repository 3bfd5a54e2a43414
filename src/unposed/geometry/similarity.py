"""Similarity between two sets of posed cameras."""

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.geometry.transforms import fit_similarity


def fit_camera_similarity(
    source: Float[Tensor, "cameras 4 4"], target: Float[Tensor, "cameras 4 4"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Scale, rotation, translation that best move the ``world_from_camera`` of ``source`` onto those of ``target``.

    Least squares over the camera centres and, so that two or collinear cameras suffice, over points a little ahead on
    the optical axes (a hundredth of the median distance between centres; DUSt3R's reference does the same). Cameras
    that all stand in one place give a rotation and a translation, and scale 1.
    """
    return fit_similarity(_centres_and_axes(source), _centres_and_axes(target))


def _centres_and_axes(poses: Float[Tensor, "cameras 4 4"]) -> Float[Tensor, "points 3"]:
    centres = poses[:, :3, 3]
    step = torch.pdist(centres).median() / 100
    step = torch.where(step > 0, step, torch.ones_like(step))
    return torch.cat([centres, centres + step * poses[:, :3, 2]])


def move_camera(
    scale: Float[Tensor, ""],
    rotation: Float[Tensor, "3 3"],
    translation: Float[Tensor, "3"],
    world_from_camera: Float[Tensor, "*cameras 4 4"],
) -> Float[Tensor, "*cameras 4 4"]:
    """Rigid poses after the world moves by a similarity: rotations turn, centres move, nothing is scaled."""
    moved = world_from_camera.clone()
    moved[..., :3, :3] = rotation @ world_from_camera[..., :3, :3]
    moved[..., :3, 3] = scale * (world_from_camera[..., :3, 3] @ rotation.T) + translation
    return moved
