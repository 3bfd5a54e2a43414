"""COLMAP text files as data sets hold them: any camera model, models larger than memory.

What ``unposed.io.colmap`` refuses (lens distortion) is kept here, and observed points are read a photo at a time.
COLMAP's pixel (0, 0) is the corner of the top-left pixel.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Landmarks
from unposed.evaluation.datasets.files import require_file, text_lines
from unposed.evaluation.datasets.poses import Intrinsics, pose_from_quaternion

_HALF = 0.5
_SHARED_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")


class TextCamera(NamedTuple):
    """A camera: model, size and the parameters in the model's order, in COLMAP's pixels."""

    model: str
    width: int
    height: int
    parameters: list[float]

    def pinhole(self) -> Intrinsics:
        """fx, fy, cx, cy in our pixels, without the lens distortion."""
        if self.model in _SHARED_FOCAL:
            focal, cx, cy = self.parameters[:3]
            return focal, focal, cx - _HALF, cy - _HALF
        fx, fy, cx, cy = self.parameters[:4]
        return fx, fy, cx - _HALF, cy - _HALF


class TextImage(NamedTuple):
    """A photo of images.txt."""

    camera_id: int
    camera_from_world: Float[Tensor, "4 4"]
    observations: int
    """Byte of the file at which the line of its observed points begins."""


class TextModel:
    """The text model in a folder: cameras.txt, images.txt and, read when first asked for, points3D.txt."""

    def __init__(self, folder: Path) -> None:
        """Raises ``UserError`` where cameras.txt or images.txt is missing or has another format."""
        self._folder = folder
        self.cameras = _read_cameras(folder / "cameras.txt")
        self.images = _read_images(folder / "images.txt")
        for name, image in self.images.items():
            if image.camera_id not in self.cameras:
                raise UserError(f"{folder / 'cameras.txt'} has no camera {image.camera_id}, which {name} refers to.")

    def camera(self, name: str) -> TextCamera:
        """The camera of a photo."""
        return self.cameras[self.images[name].camera_id]

    def landmarks(self, name: str) -> Landmarks:
        """The triangulated points that a photo observes, in our pixels.

        Raises:
            UserError: points3D.txt is missing, or the observations are damaged.
        """
        path = self._folder / "images.txt"
        with path.open("rb") as file:
            file.seek(self.images[name].observations)
            words = file.readline().split()
        try:
            rows = np.array(words, dtype=np.float64).reshape(-1, 3)
        except ValueError as error:
            raise UserError(f"{path} has damaged observations of {name} ({error}).") from error
        rows = rows[rows[:, 2] >= 0]
        ids, points = self._points
        place = np.searchsorted(ids, rows[:, 2]).clip(max=max(len(ids) - 1, 0))
        known = ids[place] == rows[:, 2] if len(ids) else np.zeros(len(rows), bool)
        pixels = torch.from_numpy(rows[known, :2] - _HALF)
        return Landmarks(pixels.float(), torch.from_numpy(points[place[known]]).float())

    @cached_property
    def _points(self) -> tuple[Any, Any]:
        """Ids in rising order, and positions."""
        path = require_file(self._folder / "points3D.txt", "the points of a COLMAP model in text form")
        ids, points = [], []
        with path.open(encoding="utf-8") as file:
            for line in file:
                words = line.split(maxsplit=4)
                if words and words[0][0] != "#":
                    ids.append(int(words[0]))
                    points.append([float(word) for word in words[1:4]])
        order = np.argsort(ids)
        return np.array(ids, np.int64)[order], np.array(points).reshape(-1, 3)[order]


def _read_cameras(path: Path) -> dict[int, TextCamera]:
    cameras = {}
    for line in text_lines(path, "cameras of COLMAP in text form"):
        words = line.split()
        try:
            numbers = [float(word) for word in words[4:]]
            cameras[int(words[0])] = TextCamera(words[1], int(words[2]), int(words[3]), numbers)
        except (ValueError, IndexError) as error:
            raise UserError(f"{path} holds {line[:40]!r}, which is no camera of COLMAP.") from error
    return cameras


def _read_images(path: Path) -> dict[str, TextImage]:
    """Every photo, "id qw qx qy qz tx ty tz camera name"; the line after it, which may be empty, is its points."""
    images = {}
    with require_file(path, "photos of COLMAP in text form").open("rb") as file:
        while line := file.readline():
            if not line.strip() or line.startswith(b"#"):
                continue
            words = line.decode("utf-8", "replace").split(maxsplit=9)
            try:
                numbers = [float(word) for word in words[1:8]]
                pose = pose_from_quaternion(numbers[:4], numbers[4:])
                images[words[9].strip()] = TextImage(int(words[8]), pose, file.tell())
            except (ValueError, IndexError) as error:
                raise UserError(f"{path} holds {words[:4]}, which is no photo of COLMAP.") from error
            file.readline()
    return images
