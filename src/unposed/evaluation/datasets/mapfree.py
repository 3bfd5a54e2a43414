"""Map-free relocalisation (Arnold et al., ECCV 2022): one photo is the map of a place, metres.

``<split>/s00000/{intrinsics.txt,poses.txt}``, ``seq0/frame_00000.jpg`` (the map) and ``seq1/frame_00000.jpg``, ...
(queries); frame numbers may have gaps.
"""

from collections.abc import Sequence
from pathlib import Path

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, Relocalisation
from unposed.evaluation.datasets.files import LazyPhoto, first_existing, subfolders, text_lines
from unposed.evaluation.datasets.poses import calibration, pose_from_quaternion, posed_camera
from unposed.geometry.transforms import invert_rigid

_REFERENCE = "seq0/frame_00000.jpg"


def read(
    root: Path, scenes: Sequence[str] | None = None, *, split: str = "val", every: int = 5
) -> list[Relocalisation]:
    """Every fifth query of each place, those that the single-frame leaderboard counts, by default.

    In the training split the queries are those of the second scan and the map is the first photo of the first. The
    poses of the test split are hidden: its queries have intrinsics and no camera.

    Args:
        root: the folder of the splits, or of the places themselves.
        scenes: places, such as "s00460".
        split: "train", "val" or "test".
        every: take the queries whose number is a multiple of this.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    what = "a place of the Map-free data set with intrinsics.txt and poses.txt"
    places = []
    for folder in subfolders(first_existing(Path(root) / split, Path(root)), scenes, what, "intrinsics.txt"):
        frames = _frames(folder)
        if _REFERENCE not in frames:
            raise UserError(f"{folder / 'intrinsics.txt'} does not list the map {_REFERENCE}; download it again.")
        queries = [name for name in frames if name.startswith("seq1/") and _number(name) % every == 0]
        places.append(Relocalisation(folder.name, (frames[_REFERENCE],), tuple(frames[name] for name in queries)))
    return places


def _frames(folder: Path) -> dict[str, Frame]:
    """All frames of a place by name, in the order of intrinsics.txt."""
    poses = {
        name: invert_rigid(pose_from_quaternion(numbers[:4], numbers[4:]))
        for name, numbers in _rows(folder / "poses.txt", 7, "frame qw qx qy qz tx ty tz, world to camera,")
    }
    frames = {}
    for name, (fx, fy, cx, cy, width, height) in _rows(folder / "intrinsics.txt", 6, "frame fx fy cx cy width height"):
        intrinsics = calibration((fx, fy, cx, cy))
        camera = posed_camera(intrinsics, poses[name], (int(width), int(height))) if name in poses else None
        known = None if camera is not None else intrinsics
        frames[name] = Frame(LazyPhoto(name, folder / name), camera, intrinsics=known)
    return frames


def _rows(path: Path, count: int, what: str) -> list[tuple[str, list[float]]]:
    rows = []
    for line in text_lines(path, f"lines of {what}"):
        name, *words = line.split()
        try:
            rows.append((name, [float(word) for word in words]))
        except ValueError as error:
            raise UserError(f"{path} holds {line[:40]!r}: lines of {what} are expected there.") from error
        if len(words) != count:
            raise UserError(f"{path} has a line of {len(words)} numbers in place of {count}: {what} is expected.")
    return rows


def _number(name: str) -> int:
    return int(name.rsplit("_", 1)[1].split(".")[0])
