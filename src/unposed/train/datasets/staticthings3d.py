"""StaticThings3D: rendered scenes of flying objects that stand still."""

from pathlib import Path
from typing import Any

import numpy as np

from unposed.errors import UserError
from unposed.train.datasets.background import MaskBackground, checked_mask, draw_mask
from unposed.train.datasets.base import TrainingView
from unposed.train.datasets.files import columns, read_array, read_arrays, read_depth_exr, text, view

_BACKGROUND = 200.0


class StaticThings3d:
    """Pairs of ``staticthings_pairs.npy``: rows (scene, sequence, camera 1, image 1, camera 2, image 2).

    Layout: in ``TRAIN/{A,B,C}/%04d/{left,right}/`` are ``%04d_{clean,final}.jpg`` (one of the two renderings is drawn),
    ``%04d.exr`` and ``%04d.npz`` (``intrinsics``, ``cam2world``). Cameras are left or right, by their first letter.
    """

    metric = False

    def __init__(self, root: Path, mask_bg: MaskBackground = False) -> None:
        """``mask_bg``: forget depth beyond 200, the background's, always or for a random half of the pairs."""
        path = root / "staticthings_pairs.npy"
        table = columns(read_array(path))
        if len(table) != 6:
            raise UserError(f"{path} has rows of {len(table)} values instead of 6: get it again.")
        self._root, self._mask_bg, self._columns = root, checked_mask(mask_bg), table

    def __len__(self) -> int:
        return len(self._columns[0])

    def pair(self, index: int, rng: np.random.Generator) -> tuple[TrainingView, TrainingView]:
        """Row ``index`` of the list."""
        scene, sequence, camera_1, image_1, camera_2, image_2 = (column[index] for column in self._columns)
        place = f"{text(scene)}/{int(sequence):04d}"
        masked = draw_mask(self._mask_bg, rng)
        return self._view(place, camera_1, image_1, masked, rng), self._view(place, camera_2, image_2, masked, rng)

    def _view(self, place: str, camera: Any, image: Any, masked: bool, rng: np.random.Generator) -> TrainingView:
        side = "left" if text(camera)[0] == "l" else "right"
        folder, number = self._root / "TRAIN" / place / side, f"{int(image):04d}"
        intrinsics, placed = read_arrays(folder / f"{number}.npz", "intrinsics", "cam2world")
        depth = read_depth_exr(folder / f"{number}.exr")
        if masked:
            depth = np.where(depth > _BACKGROUND, 0, depth)
        picture = folder / f"{number}_{('clean', 'final')[int(rng.integers(2))]}.jpg"
        return view(picture, depth, intrinsics, placed, f"staticthings3d/{place}")
