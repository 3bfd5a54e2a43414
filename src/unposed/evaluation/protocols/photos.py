"""Any folder of photos with reference cameras or depth: everything that can be measured on it, and plain baselines."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.baselines import constant_depth, sift_pose
from unposed.evaluation.datasets.base import Frame, FrameSequence, PosedPair
from unposed.evaluation.depth import DepthRule, depth_metrics
from unposed.evaluation.photo_sets import score_cameras, score_pairs
from unposed.evaluation.protocols.base import counts
from unposed.evaluation.protocols.depth_maps import SingleDepth, VideoDepth
from unposed.evaluation.results import Row
from unposed.geometry.transforms import invert_rigid
from unposed.io.photos import PhotoSet
from unposed.models.base import PairModel
from unposed.tasks.reconstruct import reconstruct
from unposed.views import Camera

COLUMNS = (
    "registered", "photos", "rotation_median_deg", "translation_median_deg", "auc@5", "auc@10", "auc@20", "auc@30",
    "focal_error_median", "ate_over_extent", "joint_AbsRel", "joint_delta1",
    "joint_sure_share", "joint_sure_delta1", "single_AbsRel", "single_delta1",
)  # fmt: skip
_RULE = DepthRule("median")
_DEPTH = ("AbsRel", "delta1")


@dataclass(frozen=True)
class PhotoSets:
    """Cameras over all pairs of photos; depth of all photos together and of each by itself, scaled by medians.

    ``joint_*``: one scale for the set, ``joint_sure_*`` over its confident pixels alone; ``single_*``: one a photo.
    ``auc`` are fractions; see ``score_cameras``.
    """

    model: PairModel
    alone: PairModel | None = None
    """For single photos, where it is another one."""

    def score(self, sequence: FrameSequence) -> Row:
        """What the set has a reference for. A part that fails counts as the worst and leaves its sentence."""
        row: Row = {}
        truth = _cameras(sequence)
        if len(truth) > 1:
            try:
                photos = PhotoSet([frame.photo for frame in sequence.frames], [])
                row |= score_cameras(reconstruct(photos, model=self.model).cameras, truth)
            except UserError as error:
                row |= {**score_cameras({}, truth), "error": str(error)}
        deep = [frame for frame in sequence.frames if frame.depth is not None]
        if deep and len(sequence.frames) > 1:
            joint = VideoDepth(self.model, _RULE)
            try:
                row |= _named("joint", joint.score(sequence))
            except UserError as error:
                row |= {**_named("joint", joint.failed(sequence)), "error": str(error)}
        if deep:
            row |= _named("single", SingleDepth(self.alone or self.model, _RULE).score(sequence))
        return row

    def failed(self, sequence: FrameSequence) -> Row:
        """Every pair 180 degrees apart, depth of nothing."""
        row: Row = score_cameras({}, _cameras(sequence))
        if any(frame.depth is not None for frame in sequence.frames):
            nothing = VideoDepth(self.model, _RULE).failed(sequence)
            row |= _named("single", nothing)
            if len(sequence.frames) > 1:
                row |= _named("joint", nothing)
        return row

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Means over the sets that have the reference for a column."""
        return _means(rows)


@dataclass(frozen=True)
class PhotoBaselines:
    """SIFT with an essential matrix and the TRUE intrinsics, pair by pair; a constant depth, scaled by medians."""

    def score(self, sequence: FrameSequence) -> Row:
        """The same columns over the same pairs and pixels; pairs without a pose are 180 degrees."""
        truth = _cameras(sequence)
        frames = {frame.photo.name: frame for frame in sequence.frames}
        found: dict[tuple[str, str], Tensor] = {}
        for a, b in itertools.combinations(sorted(truth), 2):
            try:
                found[a, b] = sift_pose(_pair(frames[a], frames[b]))
            except UserError:
                continue
        row: Row = {"pairs": len(found), **score_pairs(found, truth)}
        deep = [frame.depth() for frame in sequence.frames if frame.depth is not None]
        if deep:
            each = [depth_metrics(constant_depth(depth), depth, _RULE) for depth in deep]
            weights = [metrics["valid_pixels"] for metrics in each]
            row |= {f"single_{name}": float(np.average([m[name] for m in each], weights=weights)) for name in _DEPTH}
        return row

    def failed(self, sequence: FrameSequence) -> Row:
        """Every pair 180 degrees apart."""
        return score_pairs({}, _cameras(sequence))

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Means over the sets that have the reference for a column."""
        return _means(rows)


def _cameras(sequence: FrameSequence) -> dict[str, Camera]:
    return {frame.photo.name: frame.camera for frame in sequence.frames if frame.camera is not None}


def _pair(a: Frame, b: Frame) -> PosedPair:
    assert a.camera is not None
    assert b.camera is not None
    b_from_a = invert_rigid(b.camera.world_from_camera.double()) @ a.camera.world_from_camera.double()
    return PosedPair(f"{a.photo.name} {b.photo.name}", a, b, b_from_a)


def _named(kind: str, row: Row) -> Row:
    return {f"{kind}_{name}": row[name] for name in (*_DEPTH, "sure_share", "sure_delta1") if name in row}


def _means(rows: Sequence[Row]) -> dict[str, float]:
    means = {}
    for name in COLUMNS:
        values = [row[name] for row in rows if name in row and not np.isnan(row[name])]
        if values:
            means[name] = float(np.mean(values))
    return {**counts(rows), **means}
