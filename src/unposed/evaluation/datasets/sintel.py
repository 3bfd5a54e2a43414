"""MPI Sintel (Butler et al., ECCV 2012): 23 rendered films, 1024x436, with depth and cameras of its training part.

``training/final/<sequence>/frame_0001.png`` (or ``clean``), ``training/depth/<sequence>/frame_0001.dpt``,
``training/camdata_left/<sequence>/frame_0001.cam``; numbers little-endian.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.datasets.files import LazyPhoto, known_depth, listed, require_file, subfolders
from unposed.evaluation.datasets.poses import pose_matrix, posed_camera
from unposed.geometry.transforms import invert_rigid
from unposed.views import Camera

POSE_SCENES = (
    "alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5", "market_6", "shaman_3",
    "sleeping_1", "sleeping_2", "temple_2", "temple_3",
)  # fmt: skip
"""The 14 sequences whose camera moves enough for pose errors."""
_SIZE = (1024, 436)
_TAG = 202021.25


def read(
    root: Path, scenes: Sequence[str] | None = None, *, rendering: Literal["final", "clean"] = "final"
) -> list[FrameSequence]:
    """The sequences of the training part, all 23 by default; ``POSE_SCENES`` are those for pose errors.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = Path(root)
    training = root / "training" if (root / "training").is_dir() else root
    what = f"Sintel's folder training/{rendering} with a folder a sequence"
    sequences = []
    for folder in subfolders(training / rendering, scenes, what):
        cameras, depths = training / "camdata_left" / folder.name, training / "depth" / folder.name
        frames = [
            Frame(
                LazyPhoto(f"{folder.name}/{photo.name}", photo),
                _read_camera(cameras / f"{photo.stem}.cam"),
                partial(read_dpt, depths / f"{photo.stem}.dpt"),
            )
            for photo in listed(folder, "frame_*.png", "frames of Sintel")
        ]
        sequences.append(FrameSequence(folder.name, tuple(frames)))
    return sequences


def read_dpt(path: Path) -> Float[Tensor, "height width"]:
    """A ``.dpt`` depth map: tag 202021.25, width, height, float32 row by row.

    Raises:
        UserError: no such file, or another format.
    """
    data = _tagged(path, "Sintel's depth")
    width, height = np.frombuffer(data, "<i4", count=2, offset=4).tolist() if len(data) >= 12 else (0, 0)
    if width <= 0 or height <= 0 or len(data) != 12 + 4 * width * height:
        raise UserError(f"{path} is cut or no depth map of Sintel; extract it again.")
    return known_depth(np.frombuffer(data, "<f4", offset=12).reshape(height, width))


def _read_camera(path: Path) -> Camera | None:
    data = _tagged(path, "Sintel's camera")
    if len(data) != 4 + 8 * 21:
        raise UserError(f"{path} is cut or no camera of Sintel; extract it again.")
    numbers = np.frombuffer(data, "<f8", offset=4).copy()
    intrinsics = torch.from_numpy(numbers[:9]).reshape(3, 3)
    return posed_camera(intrinsics, invert_rigid(pose_matrix(numbers[9:].tolist())), _SIZE)


def _tagged(path: Path, what: str) -> bytes:
    data = require_file(path, what).read_bytes()
    if len(data) < 4 or np.frombuffer(data, "<f4", count=1)[0] != np.float32(_TAG):
        raise UserError(f"{path} does not begin with Sintel's tag {_TAG}; extract it again.")
    return data
