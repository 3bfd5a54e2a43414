"""Matching pixels of a pair prediction: the model's own verified ones, or reciprocal neighbours."""

import torch
from torch import Tensor

from unposed.geometry.neighbours import nearest_neighbours
from unposed.views import Matches, PairPrediction


def pair_matches(prediction: PairPrediction, *, stride: int = 8, min_confidence: float = 1.2) -> Matches:
    """Matches (view pixels) between the two views of a prediction.

    A model's own matches are taken as they are. Else pixels of view i on a grid of ``stride`` are matched to all of
    view j and kept when mutual on that grid's neighbourhood: by descriptor where there are some (MASt3R, section 3.3),
    by nearest point in 3D otherwise (DUSt3R, section 3.3). Grid pixels recur in every pair of view i, so that tracks
    over several views grow from them. Confidence is the product of both pixels' confidences.
    """
    if prediction.matches is not None:
        return prediction.matches
    if prediction.descriptors_i is not None and prediction.descriptors_j is not None:
        features_i, features_j = prediction.descriptors_i, prediction.descriptors_j
    else:
        features_i, features_j = prediction.points_i, prediction.points_j
    pixels_i, queries = _grid_features(features_i, prediction.confidence_i, stride, min_confidence)
    pixels_j, targets = _grid_features(features_j, prediction.confidence_j, 1, min_confidence)
    if len(queries) == 0 or len(targets) == 0:
        return Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
    # A query's best target must find a pixel within the query's own grid cell when searched back over all of view i.
    pixels_all, everything = _grid_features(features_i, prediction.confidence_i, 1, min_confidence)
    forward = nearest_neighbours(queries, targets)
    back = nearest_neighbours(targets[forward], everything)
    mutual = (pixels_all[back] - pixels_i).abs().amax(-1) <= stride / 4
    a, b = pixels_i[mutual], pixels_j[forward[mutual]]
    confidence = _at(prediction.confidence_i, a) * _at(prediction.confidence_j, b)
    return Matches(a.float(), b.float(), confidence)


def _grid_features(features: Tensor, confidence: Tensor, stride: int, min_confidence: float) -> tuple[Tensor, Tensor]:
    """Pixels (x, y) on a grid with enough confidence, and their features."""
    half = stride // 2
    kept = torch.zeros_like(confidence, dtype=torch.bool)
    kept[half::stride, half::stride] = True
    kept &= confidence >= min_confidence
    y, x = kept.nonzero(as_tuple=True)
    return torch.stack([x, y], -1), features[y, x]


def _at(image: Tensor, pixels: Tensor) -> Tensor:
    return image[pixels[:, 1].long(), pixels[:, 0].long()]


def matches_both_ways(forward: PairPrediction, backward: PairPrediction) -> Matches:
    """Matches (view pixels; a is the first view of ``forward``) that the predictions for (a, b) and (b, a) give.

    A model's own verified matches are the same both ways and are taken once.
    """
    there = pair_matches(forward)
    if forward.matches is not None:
        return there
    back = pair_matches(backward)
    return Matches(
        torch.cat([there.points_a, back.points_b]),
        torch.cat([there.points_b, back.points_a]),
        torch.cat([there.confidence, back.confidence]),
    )
