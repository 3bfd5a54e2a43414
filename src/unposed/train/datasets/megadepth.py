"""MegaDepth: internet photos of landmarks with depth from multi-view stereo."""

from pathlib import Path

import numpy as np

from unposed.errors import UserError
from unposed.train.datasets.base import TrainingView
from unposed.train.datasets.files import index_rows, read_arrays, read_depth_exr, text, view

_VALIDATION = ("0015", "0022")


class MegaDepth:
    """Pairs of ``all_metadata.npz``, up to a scale that differs between scenes.

    It holds ``scenes`` ("id sub"), ``images`` (file names) and ``pairs``, rows (scene, image 1, image 2, score). In
    ``<id>/<sub>/`` are ``<name>.jpg``, ``<name>.exr`` and ``<name>.npz`` (``intrinsics``, ``cam2world``), where the
    name includes the suffix of the original photo.
    """

    metric = False

    def __init__(self, root: Path, split: str = "train") -> None:
        """``split``: ``val`` is the landmarks 0015 and 0022, ``train`` all others."""
        if split not in ("train", "val"):
            raise UserError(f"MegaDepth has no split {split}: use train or val.")
        path = root / "all_metadata.npz"
        scenes, images, pairs = read_arrays(path, "scenes", "images", "pairs")
        self._root, self._images = root, images
        self._scenes = [text(scene).split() for scene in scenes]
        held_out = np.array([scene[0] in _VALIDATION for scene in self._scenes], bool)
        rows = index_rows(path, pairs, len(scenes), len(images), len(images))
        self._pairs = rows[held_out[rows[:, 0]] == (split == "val")]

    def __len__(self) -> int:
        return len(self._pairs)

    def pair(self, index: int, rng: np.random.Generator) -> tuple[TrainingView, TrainingView]:
        """Row ``index`` of the list."""
        scene, first, second = self._pairs[index]
        return self._view(scene, first), self._view(scene, second)

    def _view(self, scene: int, image: int) -> TrainingView:
        place = "/".join(self._scenes[scene])
        folder, name = self._root / place, text(self._images[image])
        intrinsics, placed = read_arrays(folder / f"{name}.npz", "intrinsics", "cam2world")
        depth = read_depth_exr(folder / f"{name}.exr")
        return view(folder / f"{name}.jpg", depth, intrinsics, placed, f"megadepth/{place}")
