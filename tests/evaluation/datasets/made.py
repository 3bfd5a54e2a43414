"""A procedural room seen by cameras of any calibration, and the files that benchmarks are made of."""

from pathlib import Path

import cv2
import numpy as np
import torch

from unposed.evaluation.datasets.base import Frame
from unposed.geometry.cameras import pixel_grid, pointmap_from_depth, project
from unposed.geometry.transforms import transform_points
from unposed.views import Camera

# walls x + z = 4 and -x + z = 4, floor y = 1
_NORMALS = torch.tensor([[1, 0, 1], [-1, 0, 1], [0, 1, 0]], dtype=torch.float64)
_OFFSETS = torch.tensor([4, 4, 1], dtype=torch.float64)
WALLS = _NORMALS, _OFFSETS


def pose(k: int) -> torch.Tensor:
    """world_from_camera (float64) of the k-th of a few cameras in the room, with no axis or sign left untried."""
    yaw, pitch, roll = 0.12 * k - 0.1, 0.05 * k - 0.04, 0.03 * k + 0.02
    rotation, _ = cv2.Rodrigues(np.array([pitch, yaw, roll]))
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.from_numpy(rotation)
    matrix[:3, 3] = torch.tensor([0.2 * k - 0.1, 0.1 - 0.15 * k, 0.07 * k])
    return matrix


def camera(k: int, intrinsics: tuple[float, float, float, float], size: tuple[int, int]) -> Camera:
    fx, fy, cx, cy = intrinsics
    matrix = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    return Camera(matrix, pose(k), *size)


def depth(seen_by: Camera) -> torch.Tensor:
    """Exact depth along z (float64), height x width."""
    pixels = pixel_grid(seen_by.height, seen_by.width, dtype=torch.float64)
    rays = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1) @ torch.linalg.inv(seen_by.intrinsics).T
    rays = rays @ seen_by.world_from_camera[:3, :3].T
    distance = (_OFFSETS - _NORMALS @ seen_by.centre) / (rays @ _NORMALS.T)
    return torch.where(distance > 0, distance, torch.inf).amin(-1)


def write_picture(path: Path, size: tuple[int, int] = (640, 480), shade: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((size[1], size[0], 3), shade, np.uint8))
    return path


def write_words(path: Path, words: np.ndarray) -> Path:
    """A 16-bit PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.rint(words).astype(np.uint16))
    return path


def write_text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def words(matrix: torch.Tensor) -> str:
    return "\n".join(" ".join(f"{value:.12g}" for value in row) for row in matrix.tolist())


def quaternion(rotation: torch.Tensor) -> list[float]:
    """wxyz, by OpenCV: not by the code under test."""
    vector = cv2.Rodrigues(rotation[:3, :3].numpy())[0][:, 0]
    angle = float(np.linalg.norm(vector))
    return [np.cos(angle / 2), *(np.sin(angle / 2) * vector / angle).tolist()]


def assert_same_room(a: Frame, b: Frame, tolerance: float = 0.01) -> None:
    """Depth of a, moved through both cameras, is the depth of b where it lands: axes, sides and units agree."""
    assert a.camera is not None
    assert b.camera is not None
    assert a.depth is not None
    assert b.depth is not None
    depth_a, depth_b = a.depth(), b.depth()
    assert tuple(depth_a.shape) == (a.camera.height, a.camera.width)
    assert depth_a.dtype == torch.float32
    known = depth_a > 0
    local = pointmap_from_depth(depth_a, a.camera.intrinsics)[known]
    there = transform_points(b.camera.camera_from_world @ a.camera.world_from_camera, local)
    column, row = project(there, b.camera.intrinsics).round().long().unbind(-1)
    inside = (column >= 0) & (row >= 0) & (column < b.camera.width) & (row < b.camera.height) & (there[:, 2] > 0)
    assert inside.float().mean() > 0.3
    met = depth_b[row[inside], column[inside]]
    error = (met / there[inside, 2] - 1).abs()[met > 0]
    assert float(error.quantile(0.9)) < tolerance
