"""Views and cameras as the readable part of a saved scene, and what must hold when they are read back."""

from pathlib import Path, PurePosixPath
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from unposed.views import Camera, Tracks, View


def describe_view(view: View, camera: Camera) -> dict[str, Any]:
    """What JSON keeps of a view and the camera of its original photo: all but the pixels."""
    return {
        "name": view.name,
        "path": None if view.path is None else str(view.path),
        "original_size": list(view.original_size),
        "exif_focal": view.exif_focal,
        "original_from_view": view.original_from_view.tolist(),
        "intrinsics": camera.intrinsics.tolist(),
        "world_from_camera": camera.world_from_camera.tolist(),
    }


def parse_view(described: dict[str, Any], image: UInt8[Tensor, "height width 3"]) -> tuple[View, Camera]:
    """The view and the camera that :func:`describe_view` described.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: something is missing, of the wrong kind or out of range.
    """
    name = described["name"]
    if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
        raise ValueError(f"view name {name!r} leads out of the folder")
    width, height = (int(value) for value in described["original_size"])
    path, focal = described["path"], described["exif_focal"]
    view = View(
        name=name,
        image=image,
        original_from_view=_matrix(described, "original_from_view", 3),
        original_size=(width, height),
        path=None if path is None else Path(path),
        exif_focal=None if focal is None else float(focal),
    )
    intrinsics, pose = _matrix(described, "intrinsics", 3), _matrix(described, "world_from_camera", 4)
    focals = (*intrinsics.diagonal()[:2], *view.original_from_view.diagonal()[:2])
    if min(width, height, *focals) <= 0:
        raise ValueError(f"view {name} has a size, focal length or scale that is not positive")
    return view, Camera(intrinsics.float(), pose.float(), width, height)


def _matrix(described: dict[str, Any], key: str, size: int) -> Tensor:
    matrix = torch.tensor(described[key], dtype=torch.float64)
    if matrix.shape != (size, size) or not matrix.isfinite().all():
        raise ValueError(f"{key} is no {size}x{size} matrix")
    return matrix


def check_tracks(tracks: Tracks, views: int) -> None:
    """Whether tracks fit together and into a scene of so many views.

    Raises:
        ValueError: they do not.
    """
    points, observations = len(tracks.points), len(tracks.view)
    shapes = (tracks.points.shape, tracks.colours.shape, tracks.pixel.shape, tracks.track.shape)
    if shapes != ((points, 3), (points, 3), (observations, 2), (observations,)):
        raise ValueError("tracks have the wrong size")
    for index, count in ((tracks.view, views), (tracks.track, points)):
        if observations and not (int(index.min()) >= 0 and int(index.max()) < count):
            raise ValueError("tracks point outside the scene")
