"""Cameras the user already has: a COLMAP model or a nerfstudio transforms.json, for photos by name."""

from pathlib import Path

from unposed.errors import UserError
from unposed.io.colmap import read_colmap
from unposed.io.nerfstudio import read_transforms
from unposed.tasks.reconstruct import NOTHING_KNOWN, Known
from unposed.views import Camera


def read_known(path: Path | None) -> Known:
    """Known intrinsics and poses from a COLMAP model folder or a ``transforms.json``; nothing for ``None``.

    Raises:
        UserError: the path is neither, or cannot be read.
    """
    if path is None:
        return NOTHING_KNOWN
    if not path.exists():
        raise UserError(f"{path} does not exist: give a COLMAP model folder or a transforms.json as --cameras")
    cameras: dict[str, Camera] = read_colmap(path).cameras if path.is_dir() else read_transforms(path)
    return Known(
        intrinsics={name: camera.intrinsics for name, camera in cameras.items()},
        world_from_camera={name: camera.world_from_camera for name, camera in cameras.items()},
    )
