"""Losses on two pointmaps in one frame: DUSt3R's regression and confidence terms, as masked means without host reads.

Sources: DUSt3R (CVPR 2024), section 3.2, equations 2 to 4, and the variants of its released recipe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NormMode = Literal["avg_dis", "avg_log1p", "avg_warp-log1p", "median_dis", "sqrt_dis"]
ScalingMode = Literal["avg", "median", "weiszfeld"]
Maps = tuple[Float[Tensor, "batch height_1 width_1 *c"], Float[Tensor, "batch height_2 width_2 *c"]]
"""One map per view; the views may differ in size."""


@dataclass(frozen=True, eq=False)
class PairTruth:
    """Ground truth of a batch of pairs: points of both views in the camera of view 1."""

    points: Maps
    valid: Maps
    """Boolean maps: pixels with a known, finite point."""
    metric: Bool[Tensor, "batch"] | None = None
    """Pairs whose truth is in metres; only ``MetricRegression`` asks."""
    sky: Maps | None = None
    """Boolean maps: pixels known to be sky; only ``MetricRegression`` asks."""

    @classmethod
    def from_world(
        cls,
        points_world: Maps,
        valid: Maps,
        camera_1_from_world: Float[Tensor, "batch 4 4"],
        max_distance: float | None = None,
    ) -> "PairTruth":
        """Move world points to camera 1; points farther than ``max_distance`` from it become invalid."""
        rotation, translation = camera_1_from_world[:, :3, :3], camera_1_from_world[:, None, None, :3, 3]

        def one_view(world: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            points = torch.einsum("bij,bhwj->bhwi", rotation, world) + translation
            mask = mask.bool() & points.isfinite().all(-1)
            return points, mask if max_distance is None else mask & (points.norm(dim=-1) <= max_distance)

        first, second = one_view(points_world[0], valid[0]), one_view(points_world[1], valid[1])
        return cls((first[0], second[0]), (first[1], second[1]))


@dataclass(frozen=True, eq=False)
class PairOutput:
    """What a pair network predicts: points of both views in camera 1 and, where it has them, confidences >= 1."""

    points: Maps
    confidence: Maps | None = None


class Loss(NamedTuple):
    """A scalar to minimise and the means it is made of, by name, in the order of the published code's details."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]


class PairLoss(Protocol):
    """Any loss on pointmap pairs."""

    def __call__(self, output: PairOutput, truth: PairTruth) -> Loss:
        """Loss of a batch."""
        ...


def masked_mean(values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Mean of the values under the mask, 0 where the mask is empty; values outside may be anything, even NaN."""
    kept = torch.where(mask, values, 0.0)
    return kept.sum() / mask.sum().clamp(min=1)


def _joint(maps: Maps) -> Float[Tensor, "batch pixels *c"]:
    """Both maps of a pair as one list of pixels."""
    return torch.cat([m.flatten(1, 2) for m in maps], 1)


def _joint_median(values: Float[Tensor, "batch pixels *c"], mask: Bool[Tensor, "batch pixels"]) -> Tensor:
    """Lower median over the pixels under the mask."""
    wide = mask.reshape(*mask.shape, *[1] * (values.dim() - 2))
    return torch.where(wide, values, torch.nan).nanmedian(1).values


def normalisation_factor(
    points: Maps, valid: Maps, mode: NormMode
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch pixels 3"]]:
    """One factor per pair from the valid points of both views (DUSt3R, equation 3, and its variants), at least 1e-8.

    Also returns the joint points, which ``avg_warp-log1p`` first rescales to length log(1 + |p|).
    """
    joint, mask = _joint(points), _joint(valid)
    distance = torch.where(mask[..., None], joint, 1.0).norm(dim=-1)
    if mode == "median_dis":
        return _joint_median(distance, mask).detach().clamp(min=1e-8), joint
    if mode == "avg_warp-log1p":
        joint = shortened(joint)
        distance = torch.log1p(distance)
    value = {"avg_log1p": torch.log1p, "sqrt_dis": torch.sqrt}.get(mode, lambda d: d)(distance)
    mean = torch.where(mask, value, 0.0).sum(1) / (mask.sum(1) + 1e-8)
    factor = mean.square() if mode == "sqrt_dis" else mean
    return factor.clamp(min=1e-8), joint


def shortened(points: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 3"]:
    """Points at length log(1 + |p|) in their direction."""
    distance = points.norm(dim=-1, keepdim=True)
    return points * (torch.log1p(distance) / distance.clamp(min=1e-8))


def optimal_scaling(
    predicted: Maps, truth: Maps, valid: Maps, mode: ScalingMode = "weiszfeld"
) -> Float[Tensor, "batch"]:
    """Scale s per pair, at least 1e-3, with predicted ~ s * truth, over the valid points of both views.

    ``avg`` minimises the squared distances, ``median`` takes the lower median of the per-point optima, ``weiszfeld``
    minimises the sum of Euclidean distances by 10 reweighted steps.
    """
    p, t, mask = _joint(predicted), _joint(truth), _joint(valid)
    p, t = torch.where(mask[..., None], p, 0.0), torch.where(mask[..., None], t, 0.0)
    dot, square = (p * t).sum(-1), (t * t).sum(-1)
    if mode == "median":
        return _joint_median(dot / square, mask).clamp(min=1e-3)
    scale = dot.sum(1) / square.sum(1)
    if mode == "weiszfeld":
        for _ in range(10):
            weight = 1 / (p - scale[:, None, None] * t).norm(dim=-1).clamp(min=1e-8)
            weight = torch.where(mask, weight, 0.0)
            scale = (weight * dot).sum(1) / (weight * square).sum(1)
    return scale.clamp(min=1e-3)


@dataclass(frozen=True)
class Regression:
    """Euclidean distance between normalised pointmaps, mean over the valid pixels of each view, summed over views.

    DUSt3R, equation 2 (``Regr3D`` in the released recipe), with its shift- and scale-invariant test variants.
    """

    norm_mode: NormMode | None = "avg_dis"
    """How a pair of pointmaps is normalised; None leaves the scale alone."""
    gt_scale: bool = False
    """Keep the truth at its own scale; only the prediction is normalised."""
    shift_invariant: bool = False
    """Subtract the median z of both views from the prediction and from the truth."""
    scale_invariant: bool = False
    """Divide by the median distance to the coordinate-wise median point."""
    _stem: ClassVar[str] = "points"

    def distances(self, output: PairOutput, truth: PairTruth) -> tuple[Maps, Maps]:
        """Per-pixel distance of both views after normalisation, and the pixels that count."""
        predicted, target = self.normalised(output, truth)
        mask = _joint(truth.valid)
        if self.shift_invariant:
            predicted, target = _without_median_depth(predicted, mask), _without_median_depth(target, mask)
        if self.scale_invariant:
            scale, wanted = _spread(predicted, mask).clamp(1e-3, 1e3), _spread(target, mask)
            if self.gt_scale:
                predicted = predicted * (wanted / scale)[:, None, None]
            else:
                predicted, target = predicted / scale[:, None, None], target / wanted[:, None, None]
        difference = torch.where(mask[..., None], predicted - target, 1.0)  # a constant keeps the gradient finite
        distance = difference.norm(dim=-1)
        return split_views(distance, truth), truth.valid

    def __call__(self, output: PairOutput, truth: PairTruth) -> Loss:
        """Sum over views of the mean distance; an empty view counts 0."""
        return self.reduce(*self.distances(output, truth))

    def reduce(self, distances: Maps, counted: Maps) -> Loss:
        """The loss whose per-pixel terms are ``distances``."""
        means = [masked_mean(d, v) for d, v in zip(distances, counted, strict=True)]
        return Loss(means[0] + means[1], {f"{self._name}_{i}": m for i, m in enumerate(means, 1)})

    @property
    def _name(self) -> str:
        return self._stem + "_shift" * self.shift_invariant + "_scale" * self.scale_invariant

    def normalised(
        self, output: PairOutput, truth: PairTruth
    ) -> tuple[Float[Tensor, "batch pixels 3"], Float[Tensor, "batch pixels 3"]]:
        """Predicted and true points of both views after normalisation, as one list of pixels."""
        target = self._own_scale(truth.points, truth.valid) if not self.gt_scale else _joint(truth.points)
        return self._own_scale(output.points, truth.valid), target

    def _own_scale(self, points: Maps, valid: Maps) -> Float[Tensor, "batch pixels 3"]:
        if self.norm_mode is None:
            return _joint(points)
        factor, joint = normalisation_factor(points, valid, self.norm_mode)
        return joint / factor[:, None, None]


def split_views(values: Float[Tensor, "batch pixels *c"], truth: PairTruth) -> Maps:
    """A joint list of pixels back as the maps of both views."""
    first, second = (p.shape[1:3] for p in truth.points)
    split = first[0] * first[1]
    return values[:, :split].unflatten(1, first), values[:, split:].unflatten(1, second)


def _without_median_depth(
    points: Float[Tensor, "batch pixels 3"], mask: Bool[Tensor, "batch pixels"]
) -> Float[Tensor, "batch pixels 3"]:
    """Points with the joint median of z subtracted from z."""
    shift = _joint_median(points[..., 2], mask)
    return torch.cat([points[..., :2], points[..., 2:] - shift[:, None, None]], -1)


def _spread(points: Float[Tensor, "batch pixels 3"], mask: Bool[Tensor, "batch pixels"]) -> Float[Tensor, "batch"]:
    """Median distance of the points to their coordinate-wise median."""
    centre = _joint_median(points, mask)
    return _joint_median((points - centre[:, None]).norm(dim=-1), mask)


@dataclass(frozen=True)
class ConfidenceWeighted:
    """Per-pixel distances weighted by the predicted confidence c: mean of ``c d - alpha ln c`` (DUSt3R, equation 4)."""

    regression: Regression = Regression()
    alpha: float = 0.2
    """Weight of the reward for being confident."""

    def __call__(self, output: PairOutput, truth: PairTruth) -> Loss:
        """Sum over views; negative once the confidences are large."""
        if output.confidence is None:
            raise ValueError("the confidence-weighted loss needs predicted confidences")
        distances, counted = self.regression.distances(output, truth)
        weighted = [
            masked_mean(c * d - self.alpha * c.log(), v)
            for d, c, v in zip(distances, output.confidence, counted, strict=True)
        ]
        parts = {f"confidence_{i}": w for i, w in enumerate(weighted, 1)}
        return Loss(weighted[0] + weighted[1], parts | self.regression.reduce(distances, counted).parts)


@dataclass(frozen=True)
class WeightedSum:
    """``sum_k factor_k loss_k``; the parts of all terms are kept."""

    terms: Sequence[tuple[float, Callable[[PairOutput, PairTruth], Loss]]]

    def __call__(self, output: PairOutput, truth: PairTruth) -> Loss:
        """The weighted sum of the terms."""
        losses = [(factor, loss(output, truth)) for factor, loss in self.terms]
        parts = {name: part for _, loss in losses for name, part in loss.parts.items()}
        return Loss(torch.stack([factor * loss.total for factor, loss in losses]).sum(), parts)
