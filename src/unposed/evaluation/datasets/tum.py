"""TUM RGB-D (Sturm et al., IROS 2012) and Bonn RGB-D Dynamic (Palazzolo et al., IROS 2019): 640x480, metres.

``<root>/<sequence>/{rgb.txt,depth.txt,groundtruth.txt,rgb/*.png,depth/*.png}``; depth is 16-bit, value / 5000. Colour,
depth and pose have clocks of their own and are joined by time stamp, within 0.02 s.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.datasets.files import LazyPhoto, first_existing, listed, png_depth, subfolders, text_lines
from unposed.evaluation.datasets.poses import Intrinsics, associate, posed_camera, read_trajectory

DYNAMIC = tuple(f"rgbd_dataset_freiburg3_{who}_{how}" for who in ("sitting", "walking") for how in (
    "halfsphere", "rpy", "static", "xyz"))  # fmt: skip
"""The eight sequences with moving people that MonST3R and CUT3R report."""
BONN = tuple(f"rgbd_bonn_{name}" for name in ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous"))
"""The five sequences that MonST3R and CUT3R report."""
_BONN_INTRINSICS: Intrinsics = (542.822841, 542.576870, 315.593520, 237.756098)
_CALIBRATED: dict[str, Intrinsics] = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
    "rgbd_bonn": _BONN_INTRINSICS,
}
_UNCALIBRATED = (525.0, 525.0, 319.5, 239.5)
_SIZE = (640, 480)
_SAME_MOMENT = 0.02
_PER_METRE = 5000
_Timed = tuple[float, Path]
_WHAT = "a sequence with rgb.txt, depth.txt and groundtruth.txt"


def read(
    root: Path, scenes: Sequence[str] | None = None, *, every: int = 3, count: int | None = 90
) -> list[FrameSequence]:
    """Frames that have a pose; every third of them and the first 90 of those, as MonST3R takes them, by default.

    The intrinsics are the calibrated ones of the camera (freiburg1 and freiburg2 have lens distortion beside them).

    Raises:
        UserError: something is missing; the sentence says what.
    """
    sequences = []
    for folder in subfolders(Path(root), scenes, _WHAT, "groundtruth.txt"):
        intrinsics, truth = _intrinsics(folder.name), folder / "groundtruth.txt"
        colour, depth = (_index(folder, folder / f"{kind}.txt") for kind in ("rgb", "depth"))
        frames = [frame for frame in _frames(folder, colour, depth, intrinsics, truth) if frame.camera is not None]
        sequences.append(FrameSequence(folder.name, tuple(frames[::every][:count])))
    return sequences


def read_bonn(
    root: Path, scenes: Sequence[str] | None = None, *, start: int = 30, count: int | None = 110
) -> list[FrameSequence]:
    """Frames 30 to 139 of the sorted pictures of each sequence, by default.

    Depth and pose are those of the picture's time stamp (its file name), not of its number in a list: the published cut
    takes lines 30 to 139 of ``groundtruth.txt``, whose rate is another. A picture without a pose has no camera.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = Path(root)
    root = root / "rgbd_bonn_dataset" if (root / "rgbd_bonn_dataset").is_dir() else root
    sequences = []
    for folder in subfolders(root, scenes, "a Bonn sequence with rgb, depth and groundtruth.txt", "groundtruth.txt"):
        colour, depth = ([(_stamp(p), p) for p in listed(folder / kind, "*.png", _WHAT)] for kind in ("rgb", "depth"))
        end = None if count is None else start + count
        frames = _frames(folder, colour[start:end], depth, _BONN_INTRINSICS, folder / "groundtruth.txt")
        sequences.append(FrameSequence(folder.name, frames))
    return sequences


def read_gathered(root: Path, scenes: Sequence[str] | None = None) -> list[FrameSequence]:
    """The frames that MonST3R's preparation gathers, all of them.

    Of TUM ``rgb_90`` and ``groundtruth_90.txt``, of Bonn ``rgb_110``, ``depth_110`` and ``groundtruth.txt``; pictures
    keep the times in their names, by which poses and depth are found.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = first_existing(Path(root) / "rgbd_bonn_dataset", Path(root))
    sequences = []
    for folder in subfolders(root, scenes, "a sequence with rgb_90 or rgb_110", "groundtruth.txt"):
        count = 90 if (folder / "rgb_90").is_dir() else 110
        colour = [(_stamp(path), path) for path in listed(folder / f"rgb_{count}", "*.png", "gathered pictures")]
        depths = first_existing(folder / f"depth_{count}", folder / "depth")
        depth = [(_stamp(path), path) for path in sorted(depths.glob("*.png"))]
        truth = first_existing(folder / "groundtruth_90.txt", folder / "groundtruth.txt")  # never groundtruth_110.txt
        frames = _frames(folder, colour, depth, _intrinsics(folder.name), truth)
        sequences.append(FrameSequence(folder.name, frames))
    return sequences


def _frames(
    folder: Path, colour: list[_Timed], depth: list[_Timed], intrinsics: Intrinsics, trajectory: Path
) -> tuple[Frame, ...]:
    """The colour pictures in order, each with the pose and the depth of its moment where there are such."""
    stamps, poses = read_trajectory(trajectory)
    times = [time for time, _ in colour]
    pose_of = dict(associate(times, stamps, _SAME_MOMENT))
    depth_of = dict(associate(times, [time for time, _ in depth], _SAME_MOMENT))
    frames = []
    for k, (time, path) in enumerate(colour):
        frames.append(
            Frame(
                LazyPhoto(path.relative_to(folder).as_posix(), path),
                posed_camera(intrinsics, poses[pose_of[k]], _SIZE) if k in pose_of else None,
                partial(png_depth, depth[depth_of[k]][1], _PER_METRE) if k in depth_of else None,
                time=time,
            )
        )
    return tuple(frames)


def _intrinsics(name: str) -> Intrinsics:
    return next((values for part, values in _CALIBRATED.items() if part in name), _UNCALIBRATED)


def _index(folder: Path, file: Path) -> list[_Timed]:
    """Time and path of every line "time path"."""
    rows = [line.split(maxsplit=1) for line in text_lines(file, 'lines "time file"')]
    try:
        return sorted((float(time), folder / name) for time, name in rows)
    except ValueError as error:
        raise UserError(f'{file} holds a line that is not "time file": {error}.') from error


def _stamp(path: Path) -> float:
    try:
        return float(path.stem)
    except ValueError as error:
        raise UserError(f"{path} is not called by its time in seconds, as the pictures of Bonn are.") from error
