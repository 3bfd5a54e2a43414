"""Pairs through a pair model: every view is encoded once, however many pairs it is in."""

from collections.abc import Callable, Iterator, Sequence

from unposed.models.base import PairModel
from unposed.views import Pair, PairPrediction, View


def predict_pairs(
    model: PairModel, views: Sequence[View], pairs: Sequence[Pair], progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[Pair, PairPrediction]]:
    """Predictions as they become ready, not necessarily in order; ``progress(done, total)`` is called after each."""
    features = model.encode(views)
    for done, (pair, prediction) in enumerate(model.decode(views, features, pairs), start=1):
        yield pair, prediction
        if progress is not None:
            progress(done, len(pairs))
