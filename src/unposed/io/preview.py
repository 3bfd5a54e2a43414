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
_HIGHLIGHT = torch.tensor([220, 30, 30], dtype=torch.uint8)
_OVERSAMPLING = 2
_LINE_LEVEL = 1  # lines are 2**1 oversampled pixels wide
_SAME_SURFACE = 1.03  # ratio of depths up to which a point is on the surface that covers its neighbourhood
_FIELD_OF_VIEW = 45.0  # degrees, of the picture's height
_RAISED = 25.0  # degrees that the viewpoint looks down


def render_preview(
    cloud: PointCloud,
    cameras: Sequence[Camera],
    width: int = 960,
    height: int = 600,
    *,
    highlighted: Sequence[Camera] = (),
) -> UInt8[Tensor, "height width 3"]:
    """RGB picture of the points and the cameras (at least one), seen with a depth test from behind and above.

    ``highlighted`` cameras, say of localised photos, are red among the others.
    """
    everyone = [*cameras, *highlighted]
    camera = overview_camera(cloud.positions, everyone, width * _OVERSAMPLING, height * _OVERSAMPLING)
    picture, nearest = _splat(*_seen(camera, cloud.positions, cloud.colours), camera.width, camera.height)
    lines = _frusta(everyone, cloud.positions)
    colours = _FRAME.expand(len(lines), 3).clone()
    colours[len(lines) * len(cameras) // len(everyone) :] = _HIGHLIGHT
    frames, frame_depth = _draw(*_seen(camera, lines, colours), camera.width, camera.height, _LINE_LEVEL)
    frames, frame_depth = (
        _enlarge(frames, nearest.shape, _LINE_LEVEL),
        _enlarge(frame_depth, nearest.shape, _LINE_LEVEL),
    )
    picture = np.where((frame_depth < nearest)[..., None], frames, picture)
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


def _seen(camera: Camera, points: Tensor, colours: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, depths and colours of the points before a camera, far ones first."""
    local = transform_points(camera.camera_from_world, points)
    ahead = local[:, 2] > 1e-6
    local, colours = local[ahead], colours[ahead]
    order = local[:, 2].argsort(descending=True)
    pixels = project(local, camera.intrinsics).round().long()
    return pixels[order].numpy(), local[order, 2].numpy(), colours[order].numpy()


def _splat(
    pixels: np.ndarray, depth: np.ndarray, colours: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Picture and depth without holes: drawn at several resolutions; a finer one counts where it lies in front."""
    sparseness = np.sqrt(width * height / max(len(pixels), 1))
    coarsest = int(np.clip(np.ceil(np.log2(sparseness)), 1, 4))
    picture, nearest = _draw(pixels, depth, colours, width, height, coarsest)
    for level in reversed(range(coarsest)):
        fine, fine_depth = _draw(pixels, depth, colours, width, height, level)
        picture, nearest = _enlarge(picture, fine_depth.shape, 1), _enlarge(nearest, fine_depth.shape, 1)
        visible = fine_depth <= nearest * _SAME_SURFACE
        picture[visible], nearest[visible] = fine[visible], fine_depth[visible]
    return picture, nearest


def _enlarge(array: np.ndarray, shape: tuple[int, ...], level: int) -> np.ndarray:
    """Every pixel ``2**level`` times as large in both directions, cut to (height, width)."""
    return array.repeat(2**level, 0).repeat(2**level, 1)[: shape[0], : shape[1]]


def _draw(
    pixels: np.ndarray, depth: np.ndarray, colours: np.ndarray, width: int, height: int, level: int
) -> tuple[np.ndarray, np.ndarray]:
    """Picture and depth at a resolution ``2**level`` times smaller, one pixel a point; points come far ones first."""
    rows, columns = -(-height >> level), -(-width >> level)
    x, y = (pixels >> level).T
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    index = y[inside] * columns + x[inside]
    picture = np.full((rows * columns, 3), _BACKGROUND, np.uint8)
    nearest = np.full(rows * columns, np.inf, np.float32)
    picture[index], nearest[index] = colours[inside], depth[inside]  # of points in one pixel the last one stays
    return picture.reshape(rows, columns, 3), nearest.reshape(rows, columns)
