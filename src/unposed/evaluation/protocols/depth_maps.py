"""Depth of single photos and of videos: KITTI, Bonn, NYUv2, Sintel, TUM (MonST3R, CUT3R; DUSt3R 4.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.depth import METRICS, DepthRule, depth_metrics
from unposed.evaluation.protocols.base import counts, evenly, photos_of
from unposed.evaluation.results import Row
from unposed.models.base import PairModel
from unposed.tasks.depth import Depth, depth

Map = Float[Tensor, "height width"]
SURE = 1.5
"""Confidence from which a scene shows its points by default."""
_ERRORS = [name for name in METRICS if name != "valid_pixels"]
_NOTHING = {"AbsRel": 1.0, "SqRel": float("inf"), "RMSE": float("inf"), "LogRMSE": float("inf")}
"""What a map of zeros would score, and infinite where that depends on the scene; no pixel is within any delta."""


def comparable(found: Depth | None, truth: Map) -> tuple[Map, Map, Map]:
    """Prediction and truth as ``depth_metrics`` takes them, and confidence, at the size of the truth.

    NaN where the model looked and gave no depth; truth 0 where the model did not look (the photo was cropped for it).
    """
    if found is None:
        return torch.full_like(truth, torch.nan), truth, torch.zeros_like(truth)
    maps = torch.stack([found.depth, found.confidence])[None]
    if maps.shape[-2:] != truth.shape:
        maps = torch.nn.functional.interpolate(maps, truth.shape, mode="nearest-exact")
    predicted, confidence = maps[0]
    return torch.where(predicted > 0, predicted, torch.nan), torch.where(confidence > 0, truth, 0.0), confidence


@dataclass(frozen=True)
class SingleDepth:
    """Every frame with true depth by itself, with an alignment of its own."""

    model: PairModel
    rule: DepthRule
    most: int | None = None
    """Frames of a sequence at most, evenly spread."""

    def score(self, sequence: FrameSequence) -> Row:
        """Metrics of the frames, averaged over their pixels; a frame without any depth counts as zeros."""
        frames = _with_depth(sequence)
        rows: list[dict[str, float]] = []
        silent = 0
        for k in evenly(len(frames), self.most):
            found = self._depth(frames[k])
            silent += found is None
            predicted, truth, _ = comparable(found, _truth(frames[k]))
            rows.append(depth_metrics(predicted, truth, self.rule))
        each = {f"{name}_of_frames": [row[name] for row in rows] for name in ("AbsRel", "delta1")}
        return {"frames": len(rows), "frames_without_depth": silent, **_by_pixels(rows), **each}

    def failed(self, sequence: FrameSequence) -> Row:
        """As a prediction of nothing."""
        return _failed(sequence)

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Averages over pixels, as published for videos' frames, and means over frames."""
        each = {f"{name} over frames": _over_frames(rows, name) for name in ("AbsRel", "delta1")}
        return {**counts(rows), **_by_pixels(rows), **each}

    def _depth(self, frame: Frame) -> Depth | None:
        try:
            found = depth(frame.photo, model=self.model)
        except UserError:
            return None  # the model sees no depth in one photo
        assert isinstance(found, Depth)
        return found


@dataclass(frozen=True)
class VideoDepth:
    """All frames of a sequence together, with one alignment for the sequence.

    ``sure_*``: the same over the pixels of at least confidence ``SURE`` alone, aligned on them, and their share.
    """

    model: PairModel
    rule: DepthRule
    most: int | None = None
    """Frames of a sequence at most, evenly spread."""

    def score(self, sequence: FrameSequence) -> Row:
        """Metrics over all pixels with true depth; frames that could not be joined have a scale of their own."""
        _with_depth(sequence)
        frames = [sequence.frames[k] for k in evenly(len(sequence.frames), self.most)]
        results = depth(photos_of(frames), model=self.model)
        found = {item.name: item for item in (results if isinstance(results, list) else [results])}
        known = [frame for frame in frames if frame.depth is not None]
        maps = [comparable(found.get(frame.photo.name), _truth(frame)) for frame in known]
        predicted, truth, confidence = (torch.cat([parts[k].flatten() for parts in maps]) for k in range(3))
        metrics = depth_metrics(predicted, truth, self.rule)
        sure = depth_metrics(predicted, torch.where(confidence >= SURE, truth, 0.0), self.rule)
        return {
            "frames": len(frames),
            "joined": sum(item.scene == 1 for item in found.values()),
            **metrics,
            "sure_share": sure["valid_pixels"] / max(metrics["valid_pixels"], 1),
            "sure_AbsRel": sure["AbsRel"],
            "sure_delta1": sure["delta1"],
        }

    def failed(self, sequence: FrameSequence) -> Row:
        """As a prediction of nothing."""
        return _failed(sequence)

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Averages over pixels."""
        return {**counts(rows), **_by_pixels(rows)}


def _with_depth(sequence: FrameSequence) -> list[Frame]:
    frames = [frame for frame in sequence.frames if frame.depth is not None]
    if not frames:
        raise UserError(f"{sequence.name} has no frame with true depth")
    return frames


def _truth(frame: Frame) -> Map:
    assert frame.depth is not None
    return frame.depth()


def _failed(sequence: FrameSequence) -> Row:
    pixels = 0.0
    for frame in sequence.frames:
        try:
            pixels += float((frame.depth() > 0).sum()) if frame.depth is not None else 0.0
        except UserError:
            continue  # unreadable truth is what may have failed
    return {"frames": len(sequence.frames), **dict.fromkeys(_ERRORS, 0.0), **_NOTHING, "valid_pixels": pixels}


def _over_frames(rows: Sequence[Row], name: str) -> float:
    """Mean over all frames; a failed sequence counts as one."""
    return float(np.nanmean([value for row in rows for value in row.get(f"{name}_of_frames", [row[name]])]))


def _by_pixels(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Averages weighted by the number of valid pixels, as published; rows without any count nothing."""
    weights = np.array([row["valid_pixels"] for row in rows], np.float64)
    counted = weights > 0
    if not counted.any():
        return dict.fromkeys(_ERRORS, float("nan")) | {"valid_pixels": 0.0}
    means = {}
    for name in _ERRORS:
        values = np.array([row[name] for row in rows], np.float64)
        means[name] = float(np.average(values[counted], weights=weights[counted]))
    return means | {"valid_pixels": float(weights.sum())}
