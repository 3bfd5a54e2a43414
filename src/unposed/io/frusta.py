"""Camera frusta as they are drawn: their size and their corners."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.geometry.cameras import backproject
from unposed.geometry.transforms import transform_points
from unposed.views import Camera

EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))
"""Lines of a frustum, as pairs of :func:`frustum_corners`."""


def default_frustum_depth(cameras: Sequence[Camera], points: Float[Tensor, "n 3"] | None = None) -> float:
    """Length of a frustum that is seen but in nobody's way: a part of the distances between cameras and points."""
    centres = torch.stack([camera.centre for camera in cameras])
    spread = float((centres - centres.mean(0)).norm(dim=-1).mean())
    if points is None or len(points) == 0:
        return 0.2 * spread or 0.1
    sample = points[:: max(1, len(points) // 5000)]
    distance = float((sample - centres.mean(0)).norm(dim=-1).median())
    return min(0.05 * distance, 0.3 * spread) or 0.05 * distance


def frustum_corners(camera: Camera, depth: float) -> Float[Tensor, "5 3"]:
    """World points of a camera's centre and of the corners of its image plane at ``depth``, clockwise from top-left."""
    right, bottom = camera.width - 0.5, camera.height - 0.5
    pixels = torch.tensor([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])
    corners = backproject(pixels, torch.full((4,), depth), camera.intrinsics)
    return transform_points(camera.world_from_camera, torch.cat([torch.zeros(1, 3), corners]))
