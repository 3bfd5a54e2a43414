"""7Scenes (Shotton et al., CVPR 2013): seven rooms, 640x480 RGB-D, metres.

``<root>/<scene>/{TrainSplit,TestSplit}.txt`` and ``<scene>/seq-01/frame-000000.{color.png,pose.txt,depth.proj.png}``.
The depth that comes with the data (``.depth.png``) is that of another camera (focal length 585) and is not used; depth
is read where it was registered to the colour camera (``.depth.proj.png``: 16-bit millimetres; 65535, and all above 10
metres, is invalid).
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from unposed.evaluation.datasets.base import Frame, FrameSequence, Relocalisation
from unposed.evaluation.datasets.files import LazyPhoto, listed, png_depth, subfolders, text_lines
from unposed.evaluation.datasets.kapture import published_pairs
from unposed.evaluation.datasets.poses import posed_camera, read_pose

SCENES = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")
INTRINSICS = (525.0, 525.0, 320.0, 240.0)
"""Of the colour camera, as every user of the data takes them; the data set has no calibration."""
_SIZE = (640, 480)
_WHAT = "a 7Scenes scene with TrainSplit.txt, TestSplit.txt and seq-01, ..."


def read(root: Path, scenes: Sequence[str] | None = None) -> list[Relocalisation]:
    """Test frames against training frames, a scene each.

    A list of retrieved photos is taken from ``<scene>/pairsfile/query/*.txt`` where it is there.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    return [
        Relocalisation(
            folder.name, _frames(folder, "TrainSplit.txt"), _frames(folder, "TestSplit.txt"), published_pairs(folder)
        )
        for folder in subfolders(Path(root), scenes, _WHAT, "TestSplit.txt")
    ]


def read_sequences(root: Path, scenes: Sequence[str] | None = None, *, every: int = 1) -> list[FrameSequence]:
    """Every n-th frame of each test sequence; the reconstruction protocols take every 20th, 40th or 200th.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    return [
        FrameSequence(f"{folder.name}/{name}", _sequence(folder, name)[::every])
        for folder in subfolders(Path(root), scenes, _WHAT, "TestSplit.txt")
        for name in _split(folder, "TestSplit.txt")
    ]


def _split(folder: Path, file: str) -> list[str]:
    lines = text_lines(folder / file, 'lines like "sequence1"')
    return [f"seq-{int(number):02d}" for line in lines for number in re.findall(r"\d+", line)]


def _frames(folder: Path, split: str) -> tuple[Frame, ...]:
    return tuple(frame for name in _split(folder, split) for frame in _sequence(folder, name))


def _sequence(folder: Path, name: str) -> tuple[Frame, ...]:
    poses = listed(folder / name, "frame-*.pose.txt", "a sequence of 7Scenes")
    registered = {path.name for path in (folder / name).glob("frame-*.depth.proj.png")}
    frames = []
    for path in poses:
        stem = path.name.removesuffix(".pose.txt")
        depth = path.with_name(f"{stem}.depth.proj.png")
        frames.append(
            Frame(
                LazyPhoto(f"{name}/{stem}.color.png", path.with_name(f"{stem}.color.png")),
                posed_camera(INTRINSICS, read_pose(path, "a 4x4 pose, camera to world,"), _SIZE),
                partial(png_depth, depth, 1000, farthest=10) if depth.name in registered else None,
            )
        )
    return tuple(frames)
