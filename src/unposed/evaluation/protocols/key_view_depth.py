"""Depth of a key view from it and a few more (the multi-view depth benchmark of Robust MVD, as DUSt3R 4.4 takes it)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.depth import DepthRule, depth_metrics
from unposed.evaluation.protocols.base import counts, evenly
from unposed.evaluation.results import Row
from unposed.io.depth_files import at_original_size, depth_at_original_size
from unposed.io.photos import make_views
from unposed.models.base import PairModel
from unposed.models.inference import predict_pairs
from unposed.views import PairPrediction

Map = Float[Tensor, "height width"]
INLIER_RATIO = 1.03


@dataclass(frozen=True)
class KeyViewDepth:
    """``rel`` (100 x AbsRel) and ``tau`` (percent of pixels within a ratio of 1.03) after median scaling, per key view.

    Key views are evenly spread over a sequence, their sources the frames next to them in it. (Robust MVD publishes
    lists of both, which no reader here has; on other lists numbers differ.)
    """

    model: PairModel
    keys: int = 10
    """Key views of a sequence."""
    sources: int = 4

    def score(self, sequence: FrameSequence) -> Row:
        """Means over the key views of the sequence."""
        with_depth = [k for k, frame in enumerate(sequence.frames) if frame.depth is not None]
        if not with_depth or len(sequence.frames) < 2:
            raise UserError(f"{sequence.name} has no frame with true depth and another one beside it")
        values = []
        for index in evenly(len(with_depth), self.keys):
            key = with_depth[index]
            others = sorted((k for k in range(len(sequence.frames)) if k != key), key=lambda k: abs(k - key))
            values.append(self._key_view(sequence.frames[key], [sequence.frames[k] for k in others[: self.sources]]))
        return {"key_views": len(values), "rel": _mean(values, 0), "tau": _mean(values, 1)}

    def failed(self, sequence: FrameSequence) -> Row:
        """As a depth of zero everywhere."""
        return {"key_views": 0, "rel": 100.0, "tau": 0.0}

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Means over sequences."""
        return {**counts(rows), **{name: float(np.nanmean([row[name] for row in rows])) for name in ("rel", "tau")}}

    def _key_view(self, key: Frame, sources: Sequence[Frame]) -> tuple[float, float]:
        views = make_views([key.photo, *(frame.photo for frame in sources)], self.model.image_rule)
        pairs = [(0, k) for k in range(1, len(views))]
        fused = fuse([prediction for _, prediction in predict_pairs(self.model, views, pairs)])
        assert key.depth is not None
        truth = key.depth()
        maps = torch.stack(
            [depth_at_original_size(fused, views[0]), at_original_size(torch.ones_like(fused), views[0])]
        )
        if maps.shape[1:] != truth.shape:
            maps = torch.nn.functional.interpolate(maps[None], truth.shape, mode="nearest-exact")[0]
        predicted = torch.where(maps[0] > 0, maps[0], torch.nan)
        truth = torch.where(maps[1] > 0, truth, 0.0)
        metrics = depth_metrics(predicted, truth, DepthRule("median", inlier_ratio=INLIER_RATIO))
        return 100 * metrics["AbsRel"], 100 * metrics["delta1"]


def fuse(predictions: Sequence[PairPrediction]) -> Map:
    """One depth map of view i of several pairs (i, .): brought to one scale, averaged by confidence; 0 unknown.

    Scales agree with the prediction of the highest mean confidence, by medians (DUSt3R, section 4.4).
    """
    depths = torch.stack([prediction.points_i[..., 2] for prediction in predictions])
    confidence = torch.stack([prediction.confidence_i for prediction in predictions])
    known = depths > 0
    first = int(confidence.mean((1, 2)).argmax())
    for k in range(len(depths)):
        both = known[k] & known[first]
        if both.any():
            depths[k] *= (depths[first][both] / depths[k][both]).median()
        else:
            known[k] = False
    weights = torch.where(known, confidence, 0.0)
    return (weights * depths).sum(0) / weights.sum(0).clamp(min=1e-12)


def _mean(values: Sequence[tuple[float, float]], k: int) -> float:
    return float(np.nanmean([value[k] for value in values]))
