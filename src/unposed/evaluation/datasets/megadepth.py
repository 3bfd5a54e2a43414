"""MegaDepth1500 (Li and Snavely, CVPR 2018; pairs of LoFTR): 1500 pairs of tourist photos, lengths up to scale.

``megadepth_test_pairs.txt`` ("path1 path2" a line), ``megadepth_meta_test.npz`` (path to {intrinsic 3x3, pose 4x4 world
to camera}), and the photos at those paths.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, PosedPair
from unposed.evaluation.datasets.files import LazyPhoto, OnDemand, array_file, text_lines
from unposed.evaluation.datasets.poses import pose_matrix, posed_camera
from unposed.geometry.transforms import invert_rigid


def read(root: Path, scenes: Sequence[str] | None = None) -> OnDemand[PosedPair]:
    """The pairs, each made when asked for (its cameras need the sizes of the photos).

    Args:
        root: the folder of both index files.
        scenes: words of which one must be a folder in the path of the first photo.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = Path(root)
    meta = array_file(root / "megadepth_meta_test.npz", "cameras of MegaDepth1500 by photo")
    lines = [tuple(line.split()) for line in text_lines(root / "megadepth_test_pairs.txt", 'lines "path1 path2"')]
    pairs = [names for names in lines if scenes is None or set(scenes) & set(Path(names[0]).parts)]
    for names in pairs:
        if len(names) != 2 or any(name not in meta for name in names):
            raise UserError(
                f"megadepth_meta_test.npz has no cameras for the pair {' '.join(names)!r}; they must match."
            )
    for name, entry in meta.items():
        shapes = [np.shape(entry.get(key, 0)) for key in ("intrinsic", "pose")] if isinstance(entry, dict) else []
        if shapes != [(3, 3), (4, 4)]:
            raise UserError(f"megadepth_meta_test.npz has no intrinsic (3x3) and pose (4x4) of {name}.")
    return OnDemand(len(pairs), lambda k: _pair(root, meta, *pairs[k]))


def _pair(root: Path, meta: Mapping[str, Any], first: str, second: str) -> PosedPair:
    a_from_world, b_from_world = (_camera_from_world(meta[name]) for name in (first, second))
    a, b = (_frame(root, name, meta[name]) for name in (first, second))
    return PosedPair(f"{first} {second}", a, b, (b_from_world @ invert_rigid(a_from_world)).float())


def _frame(root: Path, name: str, entry: Any) -> Frame:
    photo = LazyPhoto(name, root / name)
    intrinsics = torch.from_numpy(entry["intrinsic"]).double()
    return Frame(photo, posed_camera(intrinsics, invert_rigid(_camera_from_world(entry)), photo.size))


def _camera_from_world(entry: Any) -> Float[Tensor, "4 4"]:
    return pose_matrix(torch.from_numpy(entry["pose"]).double().flatten().tolist())
