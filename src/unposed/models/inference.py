"""Pairs through a pair model: every view is encoded once, however many pairs it is in."""

from collections.abc import Iterator, Sequence
from typing import Any

from unposed.models.base import PairModel
from unposed.views import Pair, PairPrediction, View


def predict_pairs(
    model: PairModel, views: Sequence[View], pairs: Sequence[Pair], features: Sequence[Any] | None = None
) -> Iterator[tuple[Pair, PairPrediction]]:
    """Predictions as they become ready, not necessarily in order; views that are in no pair are not encoded.

    ``features`` are those of all views, from the model's ``encode``, where the caller has them already.
    """
    needed = sorted({index for pair in pairs for index in pair})
    position = {index: k for k, index in enumerate(needed)}
    chosen = [views[index] for index in needed]
    renumbered = [(position[i], position[j]) for i, j in pairs]
    encoded = model.encode(chosen) if features is None else [features[index] for index in needed]
    for (i, j), prediction in model.decode(chosen, encoded, renumbered):
        yield (needed[i], needed[j]), prediction
