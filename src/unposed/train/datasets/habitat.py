"""Habitat: rendered indoor scans; every key is a group of five views of one place, made for cross-view completion."""

import re
from pathlib import Path

import numpy as np

from unposed.errors import UserError
from unposed.train.datasets.base import TrainingView
from unposed.train.datasets.files import pose, read_depth_exr, read_fields, read_lines, view

_VIEWS = 5


class Habitat:
    """Pairs of view 1 of a group and one of its other views, drawn anew each time.

    Layout: ``Habitat_{N}_scenes_{split}.txt`` (a line is ``scene/key``), and for k in 1 ... 5 ``<scene>/<key>_k.jpeg``,
    ``_k_depth.exr`` (metres) and ``_k_camera_params.json`` (``camera_intrinsics``, ``R_cam2world``, ``t_cam2world``).
    """

    metric = True

    def __init__(self, root: Path, split: str = "train") -> None:
        """The longest list of the split. Raises ``UserError`` where there is none."""
        named = re.compile(rf"Habitat_(\d+)_scenes_{re.escape(split)}\.txt")
        lists = {int(found[1]): path for path in root.glob("*.txt") if (found := named.fullmatch(path.name))}
        if not lists:
            raise UserError(f"{root} has no Habitat_<N>_scenes_{split}.txt, the list of its groups of views.")
        self._root = root
        self._groups = read_lines(lists[max(lists)])

    def __len__(self) -> int:
        return len(self._groups)

    def pair(self, index: int, rng: np.random.Generator) -> tuple[TrainingView, TrainingView]:
        """View 1 of group ``index`` and one of the others."""
        group = self._groups[index]
        return self._view(group, 1), self._view(group, int(rng.integers(2, _VIEWS + 1)))

    def _view(self, group: str, k: int) -> TrainingView:
        stem = f"{group}_{k}"
        camera = self._root / f"{stem}_camera_params.json"
        intrinsics, rotation, centre = read_fields(camera, "camera_intrinsics", "R_cam2world", "t_cam2world")
        depth = read_depth_exr(self._root / f"{stem}_depth.exr")
        return view(self._root / f"{stem}.jpeg", depth, intrinsics, pose(rotation, centre), f"habitat/{group}")
