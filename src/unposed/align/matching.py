"""Matching pixels of a pair: a model's own verified ones, or reciprocal neighbours of its descriptors or points."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.align.reciprocal import (
    STRIDE,
    ReciprocalMatcher,
    described,
    match_both_ways,
    match_symmetric,
    union_of_matches,
)
from unposed.align.subpixel import refine_on_pointmap
from unposed.geometry.focal import focal_from_pointmap
from unposed.models.base import MatchModel, PairMatches, PairModel
from unposed.models.inference import device_of, encode_views, predict_pairs
from unposed.views import Matches, Pair, PairPrediction, View

BORDER = 3
"""Descriptors of pixels nearer to the border of their view than this are not believed (MASt3R, released code)."""
RETURN_TOLERANCE = 5.0
"""Pixels that the way back to a chosen pixel may end from it."""
_PAIRS_AT_ONCE = 16
"""Pairs of which a network's predictions may wait for the other order's."""


def pair_matches(
    prediction: PairPrediction,
    *,
    stride: int = STRIDE,
    min_confidence: float = 1.2,
    device: torch.device | str = "cpu",
) -> Matches:
    """Matches (view pixels, on the CPU) between the two views of a prediction; descriptors are matched on ``device``.

    A model's own matches are taken as they are. Descriptors are matched from a grid of ``stride`` in both views
    (MASt3R, section 3.3); a match is as sure as the less sure of its descriptors. Without descriptors, pixels of view i
    on the grid are matched to the nearest point in 3D and kept when the way back ends near them (DUSt3R, section 3.3),
    among points of ``min_confidence``; grid pixels recur in every pair of view i, so that tracks over several views
    grow from them, and confidence is the product of both pixels' confidences.
    """
    if prediction.matches is not None:
        return prediction.matches
    if prediction.descriptors_i is None:
        return _by_points(prediction, stride, min_confidence)
    return _off_border(match_both_ways(*described(prediction, device), stride).cpu(), prediction)


def matches_both_ways(forward: PairPrediction, backward: PairPrediction, device: torch.device | str = "cpu") -> Matches:
    """Matches (view pixels; a is the first view of ``forward``) that the predictions for (a, b) and (b, a) give.

    A model's own verified matches are the same both ways and are taken once. What descriptors of both predictions find
    counts once, with the geometric mean of its confidences (MASt3R-SfM, section 4).
    """
    if forward.matches is not None:
        return forward.matches
    if forward.descriptors_i is not None:
        return _off_border(match_symmetric(forward, backward, device=device).cpu(), forward)
    return joined(pair_matches(forward), pair_matches(backward).swapped())


def matches_of_pixels(
    prediction: PairPrediction,
    pixels_j: Float[Tensor, "n 2"],
    tolerance: float = RETURN_TOLERANCE,
    device: torch.device | str = "cpu",
) -> Matches:
    """Matches by descriptors of chosen pixels of view j, which are rounded and may lie outside of it.

    Kept where the way back from view i ends less than ``tolerance`` pixels away (MASt3R, released localisation code).
    """
    of_i, of_j, sure_i, sure_j = described(prediction, device)
    height, width = sure_j.shape
    x, y = pixels_j.to(device).round().long().unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    found = ReciprocalMatcher(of_i, of_j).match_from((y * width + x)[inside].unique(), tolerance, from_b=True)
    return _off_border(union_of_matches([found], sure_i, sure_j).cpu(), prediction)


def joined(*matches: Matches) -> Matches:
    """All of several matches of the same two views."""
    return Matches(
        torch.cat([found.points_a for found in matches]),
        torch.cat([found.points_b for found in matches]),
        torch.cat([found.confidence for found in matches]),
    )


def with_matches(prediction: PairPrediction, device: torch.device | str = "cpu") -> PairPrediction:
    """The prediction with its descriptors, which are large, turned into matches; without descriptors as it is."""
    if prediction.descriptors_i is None:
        return prediction
    return replace(
        prediction,
        matches=pair_matches(prediction, device=device),
        descriptors_i=None,
        descriptors_j=None,
        descriptor_confidence_i=None,
        descriptor_confidence_j=None,
    )


def predict_matches(
    model: PairModel, views: Sequence[View], pairs: Sequence[Pair], features: Sequence[Any] | None = None
) -> Iterator[tuple[Pair, PairMatches]]:
    """Matches of unordered pairs, as they become ready; no depth is worked out where the model can do without.

    Other models predict every pair both ways round; predictions are let go as soon as the other order is there.
    ``features`` are those of all views, from the model's ``encode``, where the caller has them already.
    """
    features = encode_views(model, views, pairs) if features is None else features
    if isinstance(model, MatchModel):
        yield from model.match_pairs(views, features, pairs)
        return
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = pairs[start : start + _PAIRS_AT_ONCE]
        waiting: dict[Pair, PairPrediction] = {}
        both = [order for i, j in part for order in ((i, j), (j, i))]
        for (i, j), prediction in predict_pairs(model, views, both, features):
            other = waiting.pop((j, i), None)
            if other is None:
                waiting[i, j] = prediction
            elif (i, j) in part:
                yield (i, j), matches_of_both(prediction, other, device_of(model))
            else:
                yield (j, i), matches_of_both(other, prediction, device_of(model))


def matches_of_both(forward: PairPrediction, backward: PairPrediction, device: torch.device | str) -> PairMatches:
    """Matches and focal lengths that the predictions for (a, b) and (b, a) tell."""
    focals = focal_of_first_view(forward), focal_of_first_view(backward)
    return PairMatches(matches_both_ways(forward, backward, device), focals, verified=forward.matches is not None)


def focal_of_first_view(prediction: PairPrediction) -> float:
    """Focal length in view pixels that the first view's pointmap tells, more sure pixels counting more."""
    height, width = prediction.confidence_i.shape
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    weights = prediction.confidence_i.log() + 1e-6
    return float(focal_from_pointmap(prediction.points_i, centre, weights))


def _by_points(prediction: PairPrediction, stride: int, min_confidence: float) -> Matches:
    """Grid pixels of view i whose nearest point in view j has its nearest point in view i within stride / 4 of them.

    The places in view j are good to a fraction of a pixel.
    """
    sure_i, sure_j = prediction.confidence_i >= min_confidence, prediction.confidence_j >= min_confidence
    pixels_i, pixels_j = sure_i.nonzero().flip(-1), sure_j.nonzero().flip(-1)
    start = (pixels_i % stride == stride // 2).all(-1).nonzero()[:, 0]
    if len(start) == 0 or len(pixels_j) == 0:
        return Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
    matcher = ReciprocalMatcher(prediction.points_i[sure_i][None], prediction.points_j[sure_j][None])
    paths = matcher.follow(start, rounds=1)
    mutual = (pixels_i[paths.a] - pixels_i[start]).abs().amax(-1) <= stride / 4
    a, b = pixels_i[start[mutual]], pixels_j[paths.b[mutual]]
    confidence = _at(prediction.confidence_i, a) * _at(prediction.confidence_j, b)
    return refine_on_pointmap(Matches(a.float(), b.float(), confidence), prediction)


def _off_border(found: Matches, prediction: PairPrediction) -> Matches:
    """The matches that have no pixel in the outermost rows and columns."""
    kept = torch.ones_like(found.confidence, dtype=torch.bool)
    for pixels, confidence in ((found.points_a, prediction.confidence_i), (found.points_b, prediction.confidence_j)):
        height, width = confidence.shape
        kept &= ((pixels >= BORDER) & (pixels < pixels.new_tensor([width, height]) - BORDER)).all(-1)
    return found.where(kept)


def _at(image: Tensor, pixels: Tensor) -> Tensor:
    return image[pixels[:, 1], pixels[:, 0]]
