"""A crop as a picture of its own camera: rotated so that the principal point is the crop's centre."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels."""


class RecentredCrop(NamedTuple):
    """How to cut a crop out as its own camera would have seen it."""

    intrinsics: Float[Tensor, "3 3"]
    photo_from_crop: Float[Tensor, "3 3"]
    """Rotation from the crop's camera to the photo's; both have one centre."""
    homography: Float[Tensor, "3 3"]
    """From the crop's pixels to the photo's."""
    size: tuple[int, int]
    """(width, height)."""


def recentred_crop(intrinsics: Float[Tensor, "3 3"], box: Box, size: tuple[int, int] | None = None) -> RecentredCrop:
    """The crop ``box`` of a photo as a picture of (width, height) ``size``, by default that of the box.

    The camera keeps its focal lengths (scaled with the picture) and turns without roll, such that the corner of the
    box farthest from the principal point stays where it is (MASt3R, released training code).
    """
    left, top, right, bottom = box
    width, height = size or (right - left, bottom - top)
    scale = min(width / (right - left), height / (bottom - top))
    k = intrinsics.to(torch.float64)
    k_crop = k.clone()
    k_crop[:2] *= scale
    centre_crop = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    k_crop[:2, 2] = centre_crop
    corners = torch.tensor([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=torch.float64)
    farthest = corners[(corners - k[:2, 2]).norm(dim=1).argmax()]
    centre = torch.tensor([(left + right) / 2, (top + bottom) / 2], dtype=torch.float64)
    in_crop = (farthest - centre) * scale + centre_crop
    rotation = _look_at(_ray(k, farthest)) @ _look_at(_ray(k_crop, in_crop)).T
    homography = k @ rotation @ torch.linalg.inv(k_crop)
    return RecentredCrop(k_crop, rotation, homography, (width, height))


def _ray(intrinsics: Float[Tensor, "3 3"], pixel: Float[Tensor, "2"]) -> Float[Tensor, "3"]:
    ray = torch.linalg.solve(intrinsics, torch.cat([pixel, pixel.new_ones(1)]))
    return ray / ray.norm()


def _look_at(ray: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """Smallest rotation that takes the z axis to a unit vector in front of the camera."""
    x, y, z = ray.tolist()
    cross = ray.new_tensor([[0.0, 0.0, x], [0.0, 0.0, y], [-x, -y, 0.0]])
    return torch.eye(3, dtype=ray.dtype) + cross + cross @ cross / (1 + z)
