"""nerfstudio's ``transforms.json``: cameras with OpenGL axes (x right, y up, z backwards) beside the original photos.

Like COLMAP's, its pixel (0, 0) is the corner of the top-left pixel (its data loader takes COLMAP's principal points as
they are and samples pixel centres at + 0.5); ours is the centre.
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unposed.errors import UserError
from unposed.io.atomic import atomic_write
from unposed.io.ply import write_ply
from unposed.io.training_photos import place_photos, usable_as_is
from unposed.views import Camera, PointCloud, View

_CV_FROM_GL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
_POINTS, _IMAGES = "sparse_pc.ply", "images"
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def write_transforms(
    path: str | Path, views: Sequence[View], cameras: Sequence[Camera], points: PointCloud | None = None
) -> None:
    """Write ``transforms.json``, with ``sparse_pc.ply`` beside it where there are points.

    Frames name the original photos, relative to the file. Photos that nerfstudio would not read as we do (rotated by
    EXIF, HEIC, video frames) are written into ``images/`` beside it (see :func:`place_photos`).

    Args:
        path: the file.
        views: in the order of the frames.
        cameras: cameras of the original photos.
        points: points to start a splatting trainer from.

    Raises:
        UserError: the place cannot be written.
    """
    path = Path(path)
    frames = []
    for view, camera in zip(views, cameras, strict=True):
        if usable_as_is(view):
            assert view.path is not None
            file = _relative(view.path, path.parent)
        else:
            placed = place_photos(path.parent / _IMAGES, [view], [camera])[0]
            file, camera = f"{_IMAGES}/{placed.name}", placed.camera
        frames.append(_frame(file, view.name, camera))
    text: dict[str, Any] = {"camera_model": "OPENCV", "frames": frames}
    if points is not None:
        write_ply(path.parent / _POINTS, points)
        text["ply_file_path"] = _POINTS
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(text, indent=1), encoding="utf-8")


def _frame(file: str, name: str, camera: Camera) -> dict[str, Any]:
    return {
        "file_path": file,
        "view_name": name,  # ours: nerfstudio reads only the keys it knows
        "w": camera.width,
        "h": camera.height,
        "fl_x": float(camera.intrinsics[0, 0]),
        "fl_y": float(camera.intrinsics[1, 1]),
        "cx": float(camera.intrinsics[0, 2]) + 0.5,
        "cy": float(camera.intrinsics[1, 2]) + 0.5,
        "transform_matrix": (camera.world_from_camera @ _CV_FROM_GL).tolist(),
    }


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def read_transforms(path: str | Path) -> dict[str, Camera]:
    """Cameras by photo name: as we wrote it, else the file's path below the folder that all photos share.

    Raises:
        UserError: no such file, a damaged one, or cameras with lens distortion.
    """
    return {name: camera for name, (camera, _) in read_transforms_with_files(path).items()}


def read_transforms_with_files(path: str | Path) -> dict[str, tuple[Camera, Path]]:
    """As :func:`read_transforms`, with the place of each photo beside the file, whether it is there or not."""
    path = Path(path)
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
        frames = text["frames"]
        files = [Path(os.path.normpath(str(frame["file_path"]).replace("\\", "/"))) for frame in frames]
        shared = os.path.commonpath([file.parent for file in files]) if files else ""
        names = [
            str(frame.get("view_name") or file.relative_to(shared).as_posix())
            for frame, file in zip(frames, files, strict=True)
        ]
        return {
            name: (_camera({**text, **frame}, name), path.parent / file)
            for name, frame, file in zip(names, frames, files, strict=True)
        }
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a transforms.json.") from error
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} is no usable transforms.json ({type(error).__name__}: {error}).") from error


def _camera(entry: dict[str, Any], name: str) -> Camera:
    if any(float(entry.get(key, 0.0)) != 0.0 for key in _DISTORTION):
        raise UserError(f"The camera of {name} has lens distortion; undistort the photos first.")
    width, height = int(entry["w"]), int(entry["h"])
    fx = float(entry["fl_x"]) if "fl_x" in entry else width / 2 / math.tan(float(entry["camera_angle_x"]) / 2)
    fy = float(entry.get("fl_y", fx))
    cx, cy = float(entry.get("cx", width / 2)) - 0.5, float(entry.get("cy", height / 2)) - 0.5
    pose = torch.tensor(entry["transform_matrix"], dtype=torch.float32)
    if pose.shape not in ((3, 4), (4, 4)) or not pose.isfinite().all():
        raise ValueError(f"transform_matrix of {name} is no 4x4 matrix")
    intrinsics = torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return Camera(intrinsics, _square(pose) @ _CV_FROM_GL, width, height)


def _square(pose: Tensor) -> Tensor:
    return torch.cat([pose[:3], torch.tensor([[0.0, 0.0, 0.0, 1.0]])])
