"""Poses as the benchmarks write them, turned into ``world_from_camera`` with x right, y down, z forward."""

import bisect
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.files import number_table
from unposed.geometry.rotations import matrix_from_quaternion
from unposed.geometry.transforms import rigid
from unposed.views import Camera

CV_FROM_GL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
"""Camera with x right, y up, z backwards to x right, y down, z forward; its own inverse."""

Intrinsics = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels; pixel (0, 0) is the centre of the top-left pixel."""


def calibration(values: Intrinsics) -> Float[Tensor, "3 3"]:
    """K (float32)."""
    fx, fy, cx, cy = values
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def posed_camera(
    intrinsics: Float[Tensor, "3 3"] | Intrinsics, world_from_camera: Float[Tensor, "4 4"], size: tuple[int, int]
) -> Camera | None:
    """A camera in float32; None where the data set marks the pose as invalid (nan, inf, or no rotation at all).

    ``size`` is (width, height).
    """
    rotation = world_from_camera[:3, :3].double()
    if not world_from_camera.isfinite().all() or not 0.5 < float(torch.linalg.det(rotation)) < 2:
        return None
    if isinstance(intrinsics, tuple):
        intrinsics = calibration(intrinsics)
    return Camera(intrinsics[:3, :3].float(), world_from_camera.float(), *size)


def pose_from_quaternion(wxyz: Sequence[float], translation: Sequence[float]) -> Float[Tensor, "4 4"]:
    """4x4 (float64) of a quaternion w first and a translation; a zero quaternion, "unknown", gives nan."""
    quaternion = torch.tensor(wxyz, dtype=torch.float64)
    if not quaternion.norm() > 0:
        quaternion = torch.full((4,), torch.nan, dtype=torch.float64)
    return rigid(matrix_from_quaternion(quaternion), torch.tensor(translation, dtype=torch.float64))


def pose_matrix(numbers: Sequence[float]) -> Float[Tensor, "4 4"]:
    """4x4 (float64) of 12 or 16 numbers, row by row."""
    rows = torch.tensor(numbers, dtype=torch.float64).reshape(-1, 4)
    return torch.cat([rows[:3], torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)])


def read_matrix(path: Path, what: str, columns: int = 4) -> Float[Tensor, "rows columns"]:
    """The matrix (float64) in a text file; nan and inf stay.

    Raises:
        UserError: no such file, or no matrix of so many columns.
    """
    table = number_table(path, what)
    if not table or any(len(row) < columns for row in table) or len(table) < 3:
        raise UserError(f"{path} holds no matrix of {columns} columns: {what} is expected there.")
    return torch.tensor([row[:columns] for row in table], dtype=torch.float64)


def read_pose(path: Path, what: str) -> Float[Tensor, "4 4"]:
    """The 3x4 or 4x4 pose (float64) in a text file; nan and inf stay.

    Raises:
        UserError: no such file, or no pose.
    """
    return pose_matrix(read_matrix(path, what)[:3].flatten().tolist())


def read_trajectory(path: Path) -> tuple[list[float], list[Float[Tensor, "4 4"]]]:
    """Times and ``world_from_camera`` (float64) of a TUM file: "time tx ty tz qx qy qz qw" a line, quaternion w LAST.

    Raises:
        UserError: no such file, or another format.
    """
    table = number_table(path, 'a trajectory, "time tx ty tz qx qy qz qw" a line,', columns=8)
    poses = [pose_from_quaternion([row[7], *row[4:7]], row[1:4]) for row in table]
    return [row[0] for row in table], poses


def associate(first: Sequence[float], second: Sequence[float], limit: float = 0.02) -> list[tuple[int, int]]:
    """Pairs (i, j) of times closer than ``limit`` seconds, greedily by difference, each used once; sorted by i.

    The rule of the TUM RGB-D benchmark.
    """
    order = sorted(range(len(second)), key=lambda j: second[j])
    times = [second[j] for j in order]
    candidates = []
    for i, time in enumerate(first):
        near = range(bisect.bisect_left(times, time - limit), bisect.bisect_right(times, time + limit))
        candidates += [(abs(times[k] - time), i, order[k]) for k in near if abs(times[k] - time) < limit]
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in sorted(candidates):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return sorted(pairs.items())
