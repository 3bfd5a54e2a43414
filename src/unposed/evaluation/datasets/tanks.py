"""Tanks and Temples (Knapitsch et al., SIGGRAPH 2017): large scenes from video, with laser scans of the training part.

``<Scene>/000001.jpg``, ... and, in the scene's folder or beside it, ``<Scene>_COLMAP_SfM.log`` (poses),
``<Scene>_trans.txt`` (4x4, from the poses' world to the scan's), ``<Scene>.ply`` (scan), ``<Scene>.json`` (crop).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.datasets.files import LazyPhoto, first_existing, json_file, listed, subfolders, text_lines
from unposed.evaluation.datasets.points import read_points
from unposed.evaluation.datasets.poses import posed_camera, read_pose
from unposed.views import Camera

THRESHOLDS = {
    "Barn": 0.01, "Caterpillar": 0.005, "Church": 0.025, "Courthouse": 0.025, "Ignatius": 0.003, "Meetingroom": 0.01,
    "Truck": 0.005,
}  # fmt: skip
"""The training scenes, with the distance in metres at which each one's F-score is taken."""
INTERMEDIATE = ("Family", "Francis", "Horse", "Lighthouse", "M60", "Panther", "Playground", "Train")
ADVANCED = ("Auditorium", "Ballroom", "Courtroom", "Museum", "Palace", "Temple")


def read(root: Path, scenes: Sequence[str] | None = None) -> list[FrameSequence]:
    """All photos of each scene, with the poses of the log where there is one; the log has no intrinsics (nan).

    With ``<Scene>_trans.txt`` the world is that of the laser scan, in metres; without, that of the log, up to scale.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = Path(root)
    sequences = []
    for folder in subfolders(root, scenes, "a scene of Tanks and Temples with photos 000001.jpg", "000001.jpg"):
        photos = listed(folder, "[0-9]*.jpg", "photos of Tanks and Temples")
        log, trans, scan = (
            first_existing(folder / f"{folder.name}{end}", root / f"{folder.name}{end}")
            for end in ("_COLMAP_SfM.log", "_trans.txt", ".ply")
        )
        cameras = _read_log(log, trans if trans.is_file() else None, photos) if log.is_file() else {}
        frames = [
            Frame(LazyPhoto(f"{folder.name}/{photo.name}", photo), cameras.get(k)) for k, photo in enumerate(photos)
        ]
        points = partial(read_points, scan) if scan.is_file() and trans.is_file() else None
        sequences.append(FrameSequence(folder.name, tuple(frames), metric=trans.is_file(), points=points))
    return sequences


@dataclass(frozen=True, eq=False)
class CropVolume:
    """The part of a scan that is scored: a polygon across one axis, between two planes."""

    polygon: Float[Tensor, "corners 2"]
    """In the two other axes, in their order (x before y before z)."""
    axis: int
    low: float
    high: float

    def contains(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Which points, in the frame of the scan, lie inside."""
        height = points[:, self.axis]
        inside = (height >= self.low) & (height <= self.high)
        across = points[:, [axis for axis in range(3) if axis != self.axis]]
        return inside & _in_polygon(self.polygon.to(points), across)


def read_crop(path: Path) -> CropVolume:
    """The crop volume of ``<Scene>.json``.

    Raises:
        UserError: no such file, or another format.
    """
    entry = json_file(path, "a crop volume with bounding_polygon, orthogonal_axis, axis_min and axis_max")
    try:
        axis = "XYZ".index(entry["orthogonal_axis"].upper())
        corners = torch.tensor(entry["bounding_polygon"], dtype=torch.float32)
        others = [other for other in range(3) if other != axis]
        return CropVolume(corners[:, others], axis, float(entry["axis_min"]), float(entry["axis_max"]))
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is no crop volume of Tanks and Temples ({error}); download it again.") from error


def _in_polygon(polygon: Float[Tensor, "corners 2"], points: Float[Tensor, "n 2"]) -> Bool[Tensor, " n"]:
    """Whether a ray to the right crosses the outline an odd number of times."""
    inside = torch.zeros(len(points), dtype=torch.bool)
    for start, end in zip(polygon, polygon.roll(-1, 0), strict=True):
        spans = (start[1] > points[:, 1]) != (end[1] > points[:, 1])
        crossing = start[0] + (points[:, 1] - start[1]) * (end[0] - start[0]) / (end[1] - start[1])
        inside ^= spans & (points[:, 0] < crossing)
    return inside


def _read_log(path: Path, trans: Path | None, photos: Sequence[Path]) -> dict[int, Camera | None]:
    """Cameras by the number of the photo: five lines each, "k k 0" and 4x4 camera to world."""
    lines = text_lines(path, "five lines a photo")
    size = LazyPhoto(photos[0].name, photos[0]).size
    intrinsics = torch.full((3, 3), torch.nan)
    scan_from_world = torch.eye(4, dtype=torch.float64) if trans is None else read_pose(trans, "a 4x4 transform")
    scale = torch.linalg.det(scan_from_world[:3, :3]) ** (1 / 3)
    cameras = {}
    try:
        for at in range(0, len(lines), 5):
            number = int(lines[at].split()[0])
            pose = torch.tensor([[float(word) for word in line.split()] for line in lines[at + 1 : at + 5]]).double()
            posed = scan_from_world @ pose.reshape(4, 4)
            posed[:3, :3] /= scale
            cameras[number] = posed_camera(intrinsics, posed, size)
    except (ValueError, IndexError, RuntimeError) as error:
        raise UserError(f"{path} is no log of Tanks and Temples ({error}); download it again.") from error
    if cameras and max(cameras) >= len(photos):
        raise UserError(f"{path} has a pose of photo {max(cameras)} and there are {len(photos)}; some are missing.")
    return cameras
