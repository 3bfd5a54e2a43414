"""COLMAP text files as data sets hold them, with any camera model: what ``unposed.io.colmap`` refuses is kept here.

Its pixel (0, 0) is the corner of the top-left pixel; nothing is shifted here.
"""

from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.files import text_lines
from unposed.evaluation.datasets.poses import pose_from_quaternion


class TextCamera(NamedTuple):
    """A line of cameras.txt."""

    model: str
    width: int
    height: int
    parameters: list[float]


class TextImage(NamedTuple):
    """A photo of images.txt."""

    camera_id: int
    camera_from_world: Float[Tensor, "4 4"]


def read_text_cameras(path: Path) -> dict[int, TextCamera]:
    """Cameras by their ids.

    Raises:
        UserError: no such file, or another format.
    """
    cameras = {}
    for line in text_lines(path, "cameras of COLMAP in text form"):
        words = line.split()
        try:
            numbers = [float(word) for word in words[4:]]
            cameras[int(words[0])] = TextCamera(words[1], int(words[2]), int(words[3]), numbers)
        except (ValueError, IndexError) as error:
            raise UserError(f"{path} holds {line[:40]!r}, which is no camera of COLMAP.") from error
    return cameras


def read_text_images(path: Path) -> dict[str, TextImage]:
    """Photos by name: "id qw qx qy qz tx ty tz camera name" a line; the lines of observed points are left out.

    A line of points has a multiple of three words and may be empty, so photos are told by their ten words.

    Raises:
        UserError: no such file, or another format.
    """
    images = {}
    for line in text_lines(path, "photos of COLMAP in text form"):
        words = line.split()
        if len(words) != 10:
            continue
        try:
            numbers = [float(word) for word in words[1:8]]
            images[words[9]] = TextImage(int(words[8]), pose_from_quaternion(numbers[:4], numbers[4:]))
        except ValueError as error:
            raise UserError(f"{path} holds {line[:40]!r}, which is no photo of COLMAP.") from error
    return images
