"""True correspondences of a pair by projecting both pointmaps into the other view (MASt3R, released training code)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unposed.geometry.cameras import project
from unposed.geometry.transforms import invert_rigid, transform_points

Pixels = Int[Tensor, "n"]
"""Row-major indices."""


def reciprocal_pixels(
    points_1: Float[Tensor, "h1 w1 3"],
    points_2: Float[Tensor, "h2 w2 3"],
    intrinsics_1: Float[Tensor, "3 3"],
    intrinsics_2: Float[Tensor, "3 3"],
    world_from_camera_1: Float[Tensor, "4 4"],
    world_from_camera_2: Float[Tensor, "4 4"],
) -> tuple[Pixels, Pixels]:
    """Pixels of either view that project onto each other, rounded and held inside the picture; in order of view 1.

    ``points_k`` are world points of the pixels of view k.
    """
    to_2 = _nearest_pixels(points_1, intrinsics_2, world_from_camera_2, points_2.shape[:2])
    to_1 = _nearest_pixels(points_2, intrinsics_1, world_from_camera_1, points_1.shape[:2])
    pixels_1 = (to_1[to_2] == torch.arange(len(to_2), device=to_2.device)).nonzero()[:, 0]
    return pixels_1, to_2[pixels_1]


def positives_and_negatives(pixels: int, positive: int, count: int, negative_share: float) -> tuple[int, int]:
    """How many of ``count`` training pairs correspond and how many do not.

    More than 1 - ``negative_share`` correspond where too few of the ``pixels`` of the smaller view have no partner.

    Raises:
        ValueError: there are not enough correspondences.
    """
    negatives = min(count - int(count * (1 - negative_share)), pixels - positive)
    if count - negatives > positive:
        raise ValueError(f"{positive} correspondences are too few for {count} pairs with {negatives} negatives")
    return count - negatives, negatives


def without_partner(pixels: Pixels, count: int) -> Bool[Tensor, "count"]:
    """Which of a view's ``count`` pixels are in no correspondence: those that negatives are drawn from."""
    alone = torch.ones(count, dtype=torch.bool, device=pixels.device)
    alone[pixels] = False
    return alone


def _nearest_pixels(
    points: Float[Tensor, "h w 3"],
    intrinsics: Float[Tensor, "3 3"],
    world_from_camera: Float[Tensor, "4 4"],
    size: torch.Size | tuple[int, int],
) -> Pixels:
    seen = project(transform_points(invert_rigid(world_from_camera), points.flatten(0, 1)), intrinsics)
    x, y = seen.round().long().unbind(-1)
    return y.clamp(0, size[0] - 1) * size[1] + x.clamp(0, size[1] - 1)
