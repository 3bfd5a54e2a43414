"""Relative pose of photo pairs: ScanNet1500 and MegaDepth1500 (LoFTR; Reloc3r's and NoPoSplat's variants)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from unposed.evaluation.datasets.base import PosedPair
from unposed.evaluation.pose import pose_auc, rotation_error
from unposed.evaluation.protocols.base import FAILED_DEG, counts
from unposed.evaluation.relative_pose import Direction, translation_error
from unposed.evaluation.results import Row
from unposed.geometry.transforms import invert_rigid

Solver = Callable[[PosedPair], Float[Tensor, "4 4"]]
"""``b_from_a`` of a pair, its translation up to scale; raises where it finds none."""


@dataclass(frozen=True)
class PairPoses:
    """Errors of each pair; area under the curve of recall over the larger error (trapezoids), over all pairs."""

    solve: Solver
    direction: Direction = "unfolded"
    inverse: bool = False
    """Compare ``a_from_b``, as Reloc3r does: the rotation error is the same, the translation's is not."""
    thresholds: tuple[int, ...] = (5, 10, 20)

    def score(self, pair: PosedPair) -> Row:
        """Rotation and translation-direction error in degrees."""
        found, truth = self.solve(pair).double(), pair.b_from_a.double()
        if self.inverse:
            found, truth = invert_rigid(found), invert_rigid(truth)
        return {
            "rotation_deg": rotation_error(found[:3, :3], truth[:3, :3]).item(),
            "translation_deg": translation_error(found[:3, 3], truth[:3, 3], self.direction).item(),
        }

    def failed(self, pair: PosedPair) -> Row:
        """180 degrees."""
        return {"rotation_deg": FAILED_DEG, "translation_deg": FAILED_DEG}

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """AUC in percent, and medians in degrees."""
        rotation, translation = (np.array([row[f"{kind}_deg"] for row in rows]) for kind in ("rotation", "translation"))
        areas = pose_auc(np.maximum(rotation, translation), self.thresholds)
        medians = {"rotation_median_deg": rotation, "translation_median_deg": translation}
        return {
            **counts(rows),
            **{f"AUC@{t}": 100 * area for t, area in zip(self.thresholds, areas, strict=True)},
            **{name: float(np.median(values)) for name, values in medians.items()},
        }
