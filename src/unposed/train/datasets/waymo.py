"""Waymo: five cameras of a car, with depth where its lidar hit."""

from pathlib import Path

import numpy as np

from unposed.train.datasets.base import TrainingView
from unposed.train.datasets.files import index_rows, read_arrays, read_depth_exr, stem, text, view


class Waymo:
    """Pairs of ``waymo_pairs.npz``, in metres; a small part of the pixels has depth.

    It holds ``scenes`` and ``frames`` (names, of the form %05d_{1..5}) and ``pairs``, rows (scene, frame 1, frame 2).
    In ``<scene>/`` are ``<frame>.jpg``, ``.exr`` and ``.npz`` (``intrinsics``, ``cam2world``, ``distortion``; the lens
    distortion, which the photos still have, is not modelled).
    """

    metric = True

    def __init__(self, root: Path) -> None:
        """There is one list, of the training scenes."""
        self._root = root
        path = root / "waymo_pairs.npz"
        self._scenes, self._frames, pairs = read_arrays(path, "scenes", "frames", "pairs")
        self._pairs = index_rows(path, pairs, len(self._scenes), len(self._frames), len(self._frames))

    def __len__(self) -> int:
        return len(self._pairs)

    def pair(self, index: int, rng: np.random.Generator) -> tuple[TrainingView, TrainingView]:
        """Row ``index`` of the list."""
        scene, first, second = self._pairs[index]
        return self._view(text(self._scenes[scene]), first), self._view(text(self._scenes[scene]), second)

    def _view(self, scene: str, frame: int) -> TrainingView:
        folder, name = self._root / scene, stem(self._frames[frame])
        intrinsics, placed = read_arrays(folder / f"{name}.npz", "intrinsics", "cam2world")
        depth = read_depth_exr(folder / f"{name}.exr")
        return view(folder / f"{name}.jpg", depth, intrinsics, placed, f"waymo/{scene}")
