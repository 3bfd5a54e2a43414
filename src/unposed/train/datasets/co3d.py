"""CO3Dv2: turntable-like videos of single objects."""

from itertools import combinations
from pathlib import Path

import numpy as np

from unposed.errors import UserError
from unposed.train.datasets.background import MaskBackground, checked_mask, draw_mask
from unposed.train.datasets.base import TrainingView
from unposed.train.datasets.files import read_arrays, read_depth_png, read_grey_png, read_json, view

_FRAMES = 100
_DISTANCES = (5, 10, 15, 20, 25, 30)
_JITTER = 4
_OBJECT = 0.1
"""Share of a mask's full value above which a pixel is the object's."""


class Sequences:
    """Pairs of frames of object sequences, at index distances of 5, 10, ... 30 among 100, each frame jittered by 4.

    ``selected_seqs_{split}.json``: {category: {sequence: [frame numbers]}}.
    """

    name: str
    metric: bool

    def __init__(self, root: Path, split: str = "train", mask_bg: MaskBackground = False) -> None:
        """``mask_bg``: forget the depth of the background, always or for a random half of the pairs (``rand``)."""
        path = root / f"selected_seqs_{split}.json"
        chosen = read_json(path)
        try:
            self._sequences = [
                (category, sequence, tuple(map(int, frames)))
                for category, sequences in chosen.items()
                for sequence, frames in sequences.items()
                if len(frames) > 1
            ]
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not {{category: {{sequence: [frame numbers]}}}}: make it again.") from error
        self._root, self._mask_bg = root, checked_mask(mask_bg)
        self._steps = [(i, j) for i, j in combinations(range(_FRAMES), 2) if j - i in _DISTANCES]

    def __len__(self) -> int:
        return len(self._sequences) * len(self._steps)

    def pair(self, index: int, rng: np.random.Generator) -> tuple[TrainingView, TrainingView]:
        """Two frames of a sequence, both with or both without background."""
        category, sequence, frames = self._sequences[index // len(self._steps)]
        masked = draw_mask(self._mask_bg, rng)
        places = np.array(self._steps[index % len(self._steps)]) + rng.integers(-_JITTER, _JITTER + 1, size=2)
        first, second = (frames[k] for k in places.clip(0, len(frames) - 1))
        folder, label = self._root / category / sequence, f"{self.name}/{category}/{sequence}"
        return self._view(folder, first, masked, label), self._view(folder, second, masked, label)

    def _view(self, folder: Path, frame: int, masked: bool, label: str) -> TrainingView:
        """One frame; without the depth of its background where it is ``masked``."""
        raise NotImplementedError


class Co3d(Sequences):
    """CO3Dv2, up to a scale that differs between sequences.

    Layout of a sequence ``<category>/<sequence>/``: ``images/frame%06d.jpg`` and ``.npz`` (``camera_intrinsics``,
    ``camera_pose``, ``maximum_depth``), ``depths/frame%06d.jpg.geometric.png`` (16 bit, 65535 is ``maximum_depth``),
    ``masks/frame%06d.png``.
    """

    name = "co3d"
    metric = False

    def _view(self, folder: Path, frame: int, masked: bool, label: str) -> TrainingView:
        name = f"frame{frame:06d}"
        intrinsics, placed, farthest = read_arrays(
            folder / "images" / f"{name}.npz", "camera_intrinsics", "camera_pose", "maximum_depth"
        )
        depth = read_depth_png(folder / "depths" / f"{name}.jpg.geometric.png", float(farthest) / 65535)
        if masked:
            depth = depth * object_mask(folder / "masks" / f"{name}.png")
        return view(folder / "images" / f"{name}.jpg", depth, intrinsics, placed, label)


def object_mask(path: Path) -> np.ndarray:
    """Pixels of the object, from an 8-bit mask."""
    return read_grey_png(path) > _OBJECT * 255
