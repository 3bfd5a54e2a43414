"""A user's own training data: folders of photos with cameras and depth, from ``gt.json`` or from COLMAP."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from unposed.errors import UserError
from unposed.train.datasets.base import TrainingView
from unposed.train.datasets.colmap import ColmapFolder, is_colmap
from unposed.train.datasets.posed_folder import PosedFolder

LEAST_OVERLAP = 0.1
"""Share of the known pixels (or points) of view 1 that view 2 must see too."""


class PhotoSet(Protocol):
    """Posed photos of one place."""

    folder: Path

    def __len__(self) -> int:
        """Number of photos."""
        ...

    def view(self, index: int) -> TrainingView:
        """One photo with depth and camera. Raises ``UserError`` where its files cannot be read."""
        ...

    def pairs(self, least_overlap: float) -> list[tuple[int, int]]:
        """Ordered pairs (i, j) of different photos where j sees at least this share of what is known of i."""
        ...


def find_photo_sets(root: Path) -> Sequence[PhotoSet]:
    """The set in ``root``, or all sets in its folders.

    Raises:
        UserError: there is none, or one is damaged.
    """
    folders = [root] if _is_set(root) else sorted(path for path in root.glob("*/") if _is_set(path))
    if not folders:
        raise UserError(f"{root} has no gt.json and no COLMAP model, there or in its folders: nothing to train on.")
    return [PosedFolder(f) if (f / "gt.json").exists() else ColmapFolder(f) for f in folders]


def _is_set(folder: Path) -> bool:
    return (folder / "gt.json").exists() or is_colmap(folder)


class Photos:
    """All pairs of a user's sets that overlap."""

    def __init__(self, root: Path, metric: bool = False, least_overlap: float = LEAST_OVERLAP) -> None:
        """``root`` is a set or a folder of sets; ``metric`` says that all of them are in metres.

        Raises ``UserError`` without two photos that overlap.
        """
        self.metric = metric
        self._sets = find_photo_sets(root)
        rows = [(k, i, j) for k, photos in enumerate(self._sets) for i, j in photos.pairs(least_overlap)]
        if not rows:
            raise UserError(
                f"{root} has no two photos that overlap by {least_overlap:.0%}: there is nothing to train on."
            )
        self._rows = np.array(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def pair(self, index: int, rng: np.random.Generator) -> tuple[TrainingView, TrainingView]:
        """Pair ``index`` of the sets, one after the other."""
        k, i, j = (int(value) for value in self._rows[index])
        return self._sets[k].view(i), self._sets[k].view(j)
