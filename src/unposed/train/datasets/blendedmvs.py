"""BlendedMVS: photos blended with renderings of the meshes that were made of them."""

from pathlib import Path

import numpy as np

from unposed.errors import UserError
from unposed.train.datasets.base import TrainingView
from unposed.train.datasets.files import columns, pose, read_array, read_arrays, read_depth_exr, view


class BlendedMvs:
    """Pairs of ``blendedmvs_pairs.npy``: rows (sequence high, sequence low, image 1, image 2, score).

    Layout: in ``<%08x%016x>/`` of the sequence's two numbers ``%08d.jpg``, ``%08d.exr`` and ``%08d.npz``
    (``intrinsics``, ``R_cam2world``, ``t_cam2world``). Up to a scale that differs between sequences.
    """

    metric = False

    def __init__(self, root: Path, split: str = "train") -> None:
        """``split``: ``val`` is the sequences whose low number is a multiple of 10, ``train`` all others."""
        if split not in ("train", "val"):
            raise UserError(f"BlendedMVS has no split {split}: use train or val.")
        path = root / "blendedmvs_pairs.npy"
        table = columns(read_array(path))
        if len(table) != 5:
            raise UserError(f"{path} has rows of {len(table)} values instead of 5: get it again.")
        kept = (table[1] % 10 == 0) == (split == "val")
        self._root, self._columns = root, [column[kept] for column in table[:4]]

    def __len__(self) -> int:
        return len(self._columns[0])

    def pair(self, index: int, rng: np.random.Generator) -> tuple[TrainingView, TrainingView]:
        """Row ``index`` of the list."""
        high, low, first, second = (int(column[index]) for column in self._columns)
        sequence = f"{high:08x}{low:016x}"
        return self._view(sequence, first), self._view(sequence, second)

    def _view(self, sequence: str, image: int) -> TrainingView:
        folder, name = self._root / sequence, f"{image:08d}"
        intrinsics, rotation, centre = read_arrays(folder / f"{name}.npz", "intrinsics", "R_cam2world", "t_cam2world")
        depth = read_depth_exr(folder / f"{name}.exr")
        return view(folder / f"{name}.jpg", depth, intrinsics, pose(rotation, centre), f"blendedmvs/{sequence}")
