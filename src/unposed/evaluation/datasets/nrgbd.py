"""Neural RGB-D (Azinovic et al., CVPR 2022): rendered rooms, 640x480, metres.

``<scene>/images/img0.png``, ``<scene>/depth/depth0.png`` (16-bit millimetres) and ``<scene>/poses.txt``, four lines a
frame. File numbers have no leading zeros.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.datasets.files import LazyPhoto, listed, number_table, png_depth, subfolders
from unposed.evaluation.datasets.poses import CV_FROM_GL, posed_camera

_INTRINSICS = (554.2562584220408, 554.2562584220408, 320.0, 240.0)
_SIZE = (640, 480)


def read(root: Path, scenes: Sequence[str] | None = None, *, every: int = 1) -> list[FrameSequence]:
    """Every n-th frame of each scene; the reconstruction protocols take every 40th or 500th.

    Frames whose pose the data set marks as invalid (nan) have no camera. Depth above 10 m is 0.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    what = "a scene of Neural RGB-D with images, depth and poses.txt"
    sequences = []
    for folder in subfolders(Path(root), scenes, what, "poses.txt"):
        photos = listed(folder / "images", "img*.png", what)
        rows = number_table(folder / "poses.txt", "four lines of four numbers a frame", columns=4)
        if len(rows) != 4 * len(photos):
            raise UserError(f"{folder / 'poses.txt'} has {len(rows)} lines for {len(photos)} photos, not four each.")
        poses = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4, 4) @ CV_FROM_GL
        frames = [
            Frame(
                LazyPhoto(f"{folder.name}/{photo.name}", photo),
                posed_camera(_INTRINSICS, pose, _SIZE),
                partial(png_depth, _depth_of(photo), 1000, farthest=10),
            )
            for photo, pose in zip(photos, poses, strict=True)
        ]
        sequences.append(FrameSequence(folder.name, tuple(frames[::every])))
    return sequences


def _depth_of(photo: Path) -> Path:
    return photo.parent.parent / "depth" / photo.name.replace("img", "depth", 1)
