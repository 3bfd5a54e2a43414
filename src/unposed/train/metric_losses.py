"""MASt3R's metric-aware regression: pairs whose truth is in metres are not normalised by themselves (section 3.2)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.train.losses import Maps, PairOutput, PairTruth, Regression, normalisation_factor, shortened


@dataclass(frozen=True)
class MetricRegression(Regression):
    """``Regression`` in which the prediction for a metric pair is divided by the factor of the truth."""

    max_metric_scale: float | None = None
    """A metric pair with a point this far away counts as one that is not."""
    log: Literal["after", "before"] | None = None
    """Shorten points to length log(1 + |p|): both sides after normalisation, or the truth before it."""
    sky_distance: float = 2.0
    """Distance that a sky pixel without a point is said to be off, so that its confidence falls; 0 ignores the sky."""
    _stem: ClassVar[str] = "metric_points"

    def distances(self, output: PairOutput, truth: PairTruth) -> tuple[Maps, Maps]:
        """Per-pixel distances and the pixels that count: those with a point, and the sky."""
        distances, valid = super().distances(output, truth)
        if self.sky_distance <= 0 or truth.sky is None:
            return distances, valid
        sky = [s & ~v for s, v in zip(truth.sky, valid, strict=True)]
        first, second = (torch.where(s, self.sky_distance, d) for s, d in zip(sky, distances, strict=True))
        return (first, second), (valid[0] | sky[0], valid[1] | sky[1])

    def normalised(
        self, output: PairOutput, truth: PairTruth
    ) -> tuple[Float[Tensor, "batch pixels 3"], Float[Tensor, "batch pixels 3"]]:
        """Predicted and true points of both views after normalisation, as one list of pixels."""
        if self.norm_mode is None:
            raise ValueError("metric regression normalises the pairs that are not metric: give a norm_mode")
        true_points = truth.points
        if self.log == "before":
            true_points = (shortened(true_points[0]), shortened(true_points[1]))
        own, predicted = normalisation_factor(output.points, truth.valid, self.norm_mode)
        theirs, target = normalisation_factor(true_points, truth.valid, self.norm_mode)
        for_metric = torch.ones_like(theirs) if self.gt_scale else theirs
        factor = torch.where(self._metric(truth, true_points), for_metric, own)
        predicted = predicted / factor[:, None, None]
        if not self.gt_scale:
            target = target / theirs[:, None, None]
        if self.log == "after":
            predicted, target = shortened(predicted), shortened(target)
        return predicted, target

    def _metric(self, truth: PairTruth, points: Maps) -> Bool[Tensor, "batch"]:
        """Pairs that are metric and not too large for it."""
        if truth.metric is None:
            return torch.zeros(len(points[0]), dtype=torch.bool, device=points[0].device)
        if self.max_metric_scale is None:
            return truth.metric
        farthest = [
            torch.where(v, p.norm(dim=-1), 0.0).flatten(1).amax(1) for p, v in zip(points, truth.valid, strict=True)
        ]
        return truth.metric & (torch.maximum(*farthest) < self.max_metric_scale)
