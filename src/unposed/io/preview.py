"""A picture of a scene without a browser: points and camera frusta from above and behind the cameras."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from unposed.geometry.cameras import intrinsics_matrix, project
from unposed.geometry.transforms import rigid, transform_points
from unposed.geometry.upright import upright_from_world
from unposed.io.atomic import atomic_write
from unposed.io.frusta import EDGES, default_frustum_depth, frustum_corners
from unposed.views import Camera, PointCloud

_BACKGROUND = 255
_FRAME = torch.tensor([40, 90, 200], dtype=torch.uint8)
_OVERSAMPLING = 2
_FIELD_OF_VIEW = 45.0  # degrees, of the picture's height
_RAISED = 25.0  # degrees that the viewpoint looks down


def render_preview(
    cloud: PointCloud, cameras: Sequence[Camera], width: int = 960, height: int = 600
) -> UInt8[Tensor, "height width 3"]:
    """RGB picture of the points and the cameras (at least one), seen with a depth test from behind and above."""
    frusta = _frusta(cameras, cloud.positions)
    colours = torch.cat([cloud.colours, _FRAME.expand(len(frusta), 3)])
    camera = overview_camera(cloud.positions, cameras, width * _OVERSAMPLING, height * _OVERSAMPLING)
    local = transform_points(camera.camera_from_world, torch.cat([cloud.positions, frusta]))
    ahead = local[:, 2] > 1e-6
    pixels = project(local[ahead], camera.intrinsics).round().long().numpy()
    picture = _splat(pixels, local[ahead, 2].numpy(), colours[ahead].numpy(), camera.width, camera.height)
    return torch.from_numpy(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


def write_png(path: str | Path, image: UInt8[Tensor, "height width 3"]) -> None:
    """Write an RGB picture.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        Image.fromarray(image.numpy()).save(temporary)


def overview_camera(points: Tensor, cameras: Sequence[Camera], width: int, height: int) -> Camera:
    """A camera that has nine tenths of the points and all given cameras in its picture."""
    poses = torch.stack([camera.world_from_camera for camera in cameras])
    upright = upright_from_world(poses)
    tilt = np.deg2rad(_RAISED)
    c, s = float(np.cos(tilt)), float(np.sin(tilt))
    camera_from_upright = torch.tensor(
        [[1.0, 0, 0], [0, -c, s], [0, -s, -c]]
    )  # y down, z forward, looking down by tilt
    rotation = camera_from_upright @ upright
    sample = points[:: max(1, len(points) // 20_000)]
    turned = sample @ rotation.T
    if len(turned):
        low, high = turned.quantile(0.05, dim=0), turned.quantile(0.95, dim=0)
        turned = turned[((turned >= low) & (turned <= high)).all(-1)]
    kept = torch.cat([turned, poses[:, :3, 3] @ rotation.T])
    focal = height / 2 / float(np.tan(np.deg2rad(_FIELD_OF_VIEW) / 2))
    intrinsics = intrinsics_matrix(focal, torch.tensor([(width - 1) / 2, (height - 1) / 2]))
    middle = (kept.amin(0) + kept.amax(0)) / 2
    offset = kept - middle
    half_x, half_y = 0.92 * width / 2 / focal, 0.92 * height / 2 / focal
    distance = float((torch.maximum(offset[:, 0].abs() / half_x, offset[:, 1].abs() / half_y) - offset[:, 2]).max())
    centre = rotation.T @ (middle - torch.tensor([0.0, 0.0, max(distance, 1e-6)]))
    return Camera(intrinsics, rigid(rotation.T, centre), width, height)


def _frusta(cameras: Sequence[Camera], points: Tensor) -> Float[Tensor, "n 3"]:
    """Dense points along the edges of all frusta."""
    depth = default_frustum_depth(cameras, points)
    steps = torch.linspace(0, 1, 400)[:, None]
    lines = []
    for camera in cameras:
        corners = frustum_corners(camera, depth)
        lines += [corners[a] * (1 - steps) + corners[b] * steps for a, b in EDGES]
    return torch.cat(lines)


def _splat(pixels: np.ndarray, depth: np.ndarray, colours: np.ndarray, width: int, height: int) -> np.ndarray:
    """Every point as a square, larger where points are few; the nearest point wins."""
    reach = int(np.clip(np.sqrt(width * height / max(len(pixels), 1)) / 1.5, 1, 4))
    order = np.argsort(-depth, kind="stable")  # far ones first, so that near ones are written over them
    picture = np.full((height, width, 3), _BACKGROUND, np.uint8)
    nearest = np.full((height, width), np.inf, np.float32)
    for dx, dy in np.ndindex(2 * reach + 1, 2 * reach + 1):
        x, y = pixels[order, 0] + dx - reach, pixels[order, 1] + dy - reach
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        index, z, colour = y[inside] * width + x[inside], depth[order][inside], colours[order][inside]
        last = np.full(height * width, -1)
        last[index] = np.arange(len(index))  # the last written, so the nearest
        filled = last >= 0
        closer = np.zeros(height * width, bool)
        closer[filled] = z[last[filled]] < nearest.reshape(-1)[filled]
        nearest.reshape(-1)[closer] = z[last[closer]]
        picture.reshape(-1, 3)[closer] = colour[last[closer]]
    return picture
