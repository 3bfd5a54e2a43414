"""What alignment keeps of pair predictions: scalars of every pair, and every pair's points at a few pixels per view.

Predictions are read one at a time, so a mapping that loads them from disk needs memory for one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unposed.geometry.cameras import map_pixels, pixel_grid
from unposed.geometry.focal import focal_from_rays
from unposed.views import Pair, PairPrediction, View

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps of it are done, and how many there are."""

MAX_SAMPLES = 200_000
"""Bound on points kept over all pairs; pixels per view follow from it, between the next two numbers."""
LEAST_PIXELS, MOST_PIXELS = 200, 2500
_FOCAL_PIXELS = 4000


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two maps of a pair, cleaned: confidence is 1 (weight 0) where the points are not finite."""

    points: Float[Tensor, "height width 3"]
    confidence: Float[Tensor, "height width"]

    @property
    def weight(self) -> Float[Tensor, "height width"]:
        """Weight in the objective: the log of the confidence."""
        return self.confidence.log()


def side_of(prediction: PairPrediction, side: int) -> Side:
    """Map of view i (0) or view j (1) of a prediction, in float32."""
    if side == 0:
        points, confidence = prediction.points_i.float(), prediction.confidence_i.float()
    else:
        points, confidence = prediction.points_j.float(), prediction.confidence_j.float()
    valid = (points.sum(-1) + confidence).isfinite()
    if not valid.all():
        points = torch.where(valid[..., None], points, torch.zeros_like(points))
        confidence = torch.where(valid, confidence, torch.ones_like(confidence))
    return Side(points, confidence.clamp(min=1.0))


def sides_of(prediction: PairPrediction) -> tuple[Side, Side]:
    """Both maps of a prediction."""
    return side_of(prediction, 0), side_of(prediction, 1)


def principal_point(view: View) -> Float[Tensor, "2"]:
    """Centre of the original photo in the view's pixels: where the principal point is when nobody knows better."""
    width, height = view.original_size
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    return map_pixels(torch.linalg.inv(view.original_from_view.double()), centre).float()


@dataclass(frozen=True, eq=False)
class Survey:
    """Scalars of every accepted pair and, for every view, how much weight all pairs together give its pixels."""

    pairs: list[Pair]
    score: Float[Tensor, "pairs"]
    """Geometric mean of the two maps' mean confidences."""
    focal: Float[Tensor, "pairs"]
    """Focal of view i that the pair's own pointmap tells, in pixels."""
    weight: list[Float[Tensor, "height width"]]
    best_pair: dict[int, tuple[float, Pair]]
    """Best score and its pair with a view in first place, over all pairs, accepted or not."""


def survey_pairs(
    views: Sequence[View],
    predictions: Mapping[Pair, PairPrediction],
    min_confidence: float,
    progress: Progress | None = None,
) -> Survey:
    """Read every prediction once; pairs whose score is below ``min_confidence`` are not accepted."""
    centres = [principal_point(view) for view in views]
    weight = [torch.zeros(view.size) for view in views]
    pairs, scores, focals = [], [], []
    best: dict[int, tuple[float, Pair]] = {}
    for done, pair in enumerate(predictions):
        i, j = pair
        side_i, side_j = sides_of(predictions[pair])
        score = float((side_i.confidence.mean() * side_j.confidence.mean()).sqrt())
        if i not in best or score > best[i][0]:
            best[i] = (score, pair)
        if i != j and score >= min_confidence:
            pairs.append(pair)
            scores.append(score)
            focals.append(pair_focal(side_i, centres[i]))
            weight[i] += side_i.weight
            weight[j] += side_j.weight
        if progress is not None:
            progress("reading pairs", done + 1, len(predictions))
    return Survey(pairs, torch.tensor(scores), torch.tensor(focals), weight, best)


def pair_focal(side: Side, centre: Float[Tensor, "2"]) -> float:
    """Focal in pixels of the camera that a map in its own frame implies; nan when the map tells nothing."""
    height, width = side.confidence.shape
    stride = max(1, int((height * width / _FOCAL_PIXELS) ** 0.5))
    pixels = (pixel_grid(height, width) - centre)[::stride, ::stride].reshape(-1, 2)
    points = side.points[::stride, ::stride].reshape(-1, 3)
    weights = side.weight[::stride, ::stride].reshape(-1) + 1e-6
    weights = torch.where(points[:, 2] > 0, weights, torch.zeros_like(weights))
    focal = float(focal_from_rays(pixels, points, weights))
    return focal if 0 < focal < float("inf") else float("nan")


@dataclass(frozen=True, eq=False)
class Samples:
    """Pointmaps of the pairs of one component at a few pixels of every view. A map is one side of one pair.

    Maps 0 .. pairs - 1 are the i sides, the others the j sides, in the order of ``pairs``.
    """

    pairs: Int[Tensor, "pairs 2"]
    """Indices into the component's views."""
    pixels: Float[Tensor, "views samples 2"]
    points: Float[Tensor, "maps samples 3"]
    """In camera i of the pair."""
    weight: Float[Tensor, "maps samples"]
    """Weight in the objective; sums over samples estimate, without bias, sums over all pixels."""
    certain: Bool[Tensor, "maps samples"]
    """Whether a sample takes part in PnP: the log of its confidence is at least half the average of its map's."""
    score: Float[Tensor, "pairs"]
    focal: Float[Tensor, "pairs"]

    @property
    def view_of_map(self) -> Int[Tensor, "maps"]:
        """View whose pixels a map gives points for."""
        return torch.cat([self.pairs[:, 0], self.pairs[:, 1]])

    @property
    def pair_of_map(self) -> Int[Tensor, "maps"]:
        """Pair that a map belongs to."""
        return torch.arange(len(self.pairs)).repeat(2)

    def keep(self, kept: Bool[Tensor, "pairs"], members: Sequence[int]) -> "Samples":
        """Only the kept pairs, and of the views only ``members`` (sorted), which are renumbered."""
        number = torch.full((len(self.pixels),), -1)
        number[torch.tensor(members)] = torch.arange(len(members))
        both = kept.repeat(2)
        return Samples(
            number[self.pairs[kept]],
            self.pixels[torch.tensor(members)],
            self.points[both],
            self.weight[both],
            self.certain[both],
            self.score[kept],
            self.focal[kept],
        )


def sample_pairs(
    members: Sequence[int],
    survey: Survey,
    predictions: Mapping[Pair, PairPrediction],
    progress: Progress | None = None,
) -> Samples:
    """Gather the points of the component of views ``members`` at pixels drawn in proportion to their weight."""
    number = {view: row for row, view in enumerate(members)}
    rows = [row for row, (i, _) in enumerate(survey.pairs) if i in number]
    pairs = [survey.pairs[row] for row in rows]
    count = min(MOST_PIXELS, max(LEAST_PIXELS, MAX_SAMPLES // (2 * len(pairs))))
    drawn = [_draw(survey.weight[view], count) for view in members]
    widths = [survey.weight[view].shape[1] for view in members]
    points = torch.zeros(2, len(pairs), count, 3)
    weight, confidence = torch.zeros(2, len(pairs), count), torch.zeros(2, len(pairs), count)
    area = torch.zeros(2, 1, 1)
    for row, pair in enumerate(pairs):
        for side, (view, maps) in enumerate(zip(pair, sides_of(predictions[pair]), strict=True)):
            index, factor = drawn[number[view]]
            points[side, row] = maps.points.reshape(-1, 3)[index]
            confidence[side, row] = maps.confidence.reshape(-1)[index]
            weight[side, row] = confidence[side, row].log() * factor
            area[side] += maps.confidence.numel()
        if progress is not None:
            progress("sampling pairs", row + 1, len(pairs))
    pixels = [torch.stack([index % width, index // width], -1) for (index, _), width in zip(drawn, widths, strict=True)]
    return Samples(
        torch.tensor([[number[i], number[j]] for i, j in pairs]),
        torch.stack(pixels).float(),
        points.flatten(0, 1),
        (weight / area).flatten(0, 1),
        _certain(confidence.flatten(0, 1)),
        survey.score[rows],
        survey.focal[rows],
    )


def _certain(confidence: Float[Tensor, "maps samples"]) -> Bool[Tensor, "maps samples"]:
    weight = confidence.log()
    positive = weight > 0
    average = weight.sum(1, keepdim=True) / positive.sum(1, keepdim=True).clamp(min=1)
    return positive & (weight >= average / 2)


def _draw(weight: Float[Tensor, "height width"], count: int) -> tuple[Int[Tensor, "count"], Float[Tensor, "count"]]:
    """Pixels (flat indices) by systematic sampling in proportion to the weight, and the inverse of their density.

    A tenth of the density is uniform: no pixel is impossible and no sample counts for more than ten.
    """
    flat = weight.flatten().double()
    uniform = torch.full_like(flat, 1 / len(flat))
    total = flat.sum()
    density = uniform if total <= 0 else 0.9 * flat / total + 0.1 * uniform
    positions = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    index = torch.searchsorted(density.cumsum(0), positions).clamp(max=len(flat) - 1)
    return index, (1 / (count * density[index])).float()
