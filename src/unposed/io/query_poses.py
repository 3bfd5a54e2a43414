"""Poses of localised photos as text, a line a photo: ``name qw qx qy qz tx ty tz``, camera from world."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.geometry.rotations import quaternion_from_matrix
from unposed.geometry.transforms import invert_rigid
from unposed.io.atomic import atomic_write


def write_query_poses(path: str | Path, poses: Mapping[str, Float[Tensor, "4 4"]]) -> None:
    """Write ``world_from_camera`` poses by photo name; unplaced photos are simply not there.

    Raises:
        UserError: the place cannot be written.
    """
    _write(path, [(name, pose) for name, pose in poses.items()])


def write_submission(path: str | Path, poses: Mapping[str, Float[Tensor, "4 4"] | None]) -> None:
    """Write the file that visuallocalization.net takes (Aachen, InLoc): base names, and every query.

    A query without a pose gets the identity, since the benchmark wants a line for each (and counts it as failed).

    Raises:
        UserError: the place cannot be written.
    """
    rows = [(PurePosixPath(name).name, torch.eye(4) if pose is None else pose) for name, pose in poses.items()]
    _write(path, rows)


def _write(path: str | Path, rows: list[tuple[str, Tensor]]) -> None:
    lines = []
    for name, world_from_camera in rows:
        pose = invert_rigid(world_from_camera.double())
        numbers = torch.cat([quaternion_from_matrix(pose[:3, :3]), pose[:3, 3] + 0.0]).tolist()  # no -0
        lines.append(" ".join([name, *(f"{number:.12g}" for number in numbers)]) + "\n")
    with atomic_write(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
