"""Pairs through a pair model: every view is encoded once, however many pairs it is in."""

from collections.abc import Iterator, Sequence

from unposed.models.base import PairModel
from unposed.views import Pair, PairPrediction, View


def predict_pairs(
    model: PairModel, views: Sequence[View], pairs: Sequence[Pair]
) -> Iterator[tuple[Pair, PairPrediction]]:
    """Predictions as they become ready, not necessarily in order; views that are in no pair are not encoded."""
    needed = sorted({index for pair in pairs for index in pair})
    position = {index: k for k, index in enumerate(needed)}
    chosen = [views[index] for index in needed]
    renumbered = [(position[i], position[j]) for i, j in pairs]
    for (i, j), prediction in model.decode(chosen, model.encode(chosen), renumbered):
        yield (needed[i], needed[j]), prediction
