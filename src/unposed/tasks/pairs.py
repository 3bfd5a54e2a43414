"""Which pairs of a collection a task looks at: all of a few photos, and of many those that show the same things."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from unposed.align.graph import (
    connecting_pairs,
    loop_pairs,
    make_pairs,
    needs_similarity,
    read_pairs,
    retrieval_pairs,
)
from unposed.models.base import PairModel
from unposed.models.retrieval import find_retriever, released_weights
from unposed.tasks.progress import Reporter
from unposed.views import Pair, View

COMPLETE_UP_TO = 30
"""Photos up to which every pair is looked at when the scene graph is left to us."""
NEIGHBOURS = 10
"""Of every photo of a larger collection, so many that are most like it."""
FRAME_WINDOW, LOOPS = 4, 3
"""Of every frame of a video: those 1, 2, 4, ... 2^(FRAME_WINDOW - 1) away, and so many from elsewhere in it."""
_VIEWS_AT_ONCE = 16

Similarity = Float[Tensor, "photos photos"]


def pairs_of_views(
    graph: str,
    model: PairModel,
    views: Sequence[View],
    asked: str | Path | PairModel,
    report: Reporter,
    in_sequence: bool = False,
) -> tuple[list[Pair], list[Any] | None]:
    """The pairs to predict (``choose_pairs``), and the features of all views where choosing needed them.

    ``asked`` is how the user named the model: where that is a released file, retrieval weights beside it are used.

    Raises:
        UserError: as ``choose_pairs`` and ``find_retriever`` do.
    """
    names = [view.name for view in views]
    if not wants_similarity(graph, len(views)):
        return choose_pairs(graph, names), None
    similarity, features = alike(model, views, asked, report)
    return choose_pairs(graph, names, similarity, in_sequence), features


def choose_pairs(
    graph: str, names: Sequence[str], similarity: Similarity | None = None, in_sequence: bool = False
) -> list[Pair]:
    """Ordered pairs to predict, both ways round; one photo is paired with itself (DUSt3R, section 3.3).

    Args:
        graph: name of a scene graph, a file that lists pairs of photo names, or ``auto``: complete for up to
            ``COMPLETE_UP_TO`` photos; beyond, every photo with the ``NEIGHBOURS`` most like it and what connects the
            pieces; of a video, every frame with those near it in time and with places that the video comes back to.
        names: of the photos.
        similarity: of every photo to every other (``alike``), where ``wants_similarity`` says so.
        in_sequence: whether the photos are frames of one video, in order.

    Raises:
        UserError: no such scene graph, or a list of pairs that cannot be used.
    """
    if len(names) == 1:
        return [(0, 0)]
    if graph != "auto":
        if Path(graph).is_file():
            return _both_ways(read_pairs(Path(graph), names))
        return make_pairs(graph, len(names), similarity=similarity)
    if len(names) <= COMPLETE_UP_TO:
        return make_pairs("complete", len(names))
    if similarity is None:
        raise ValueError(f"{len(names)} photos are paired by their similarity, which is missing")
    if in_sequence:
        window = make_pairs(f"logwin-{FRAME_WINDOW}-noncyclic", len(names), symmetrize=False)
        return _both_ways([*window, *loop_pairs(similarity, 2 ** (FRAME_WINDOW - 1), LOOPS)])
    mutual = (similarity + similarity.T) / 2
    mutual.fill_diagonal_(float("inf"))
    neighbours = retrieval_pairs(mutual, 0, NEIGHBOURS + 1)
    return _both_ways([*neighbours, *connecting_pairs(similarity, neighbours)])


def wants_similarity(graph: str, photos: int) -> bool:
    """Whether ``choose_pairs`` wants to know which photos are alike."""
    return photos > COMPLETE_UP_TO if graph == "auto" else photos > 1 and needs_similarity(graph)


def alike(
    model: PairModel, views: Sequence[View], asked: str | Path | PairModel, report: Reporter
) -> tuple[Similarity, list[Any]]:
    """How alike the views are (``asked`` as in ``pairs_of_views``), and their features."""
    weights = released_weights(asked) if isinstance(asked, str | Path) else None
    retriever = find_retriever(model, weights)
    features: list[Any] = []
    descriptions: list[Any] = []
    for start in range(0, len(views), _VIEWS_AT_ONCE):
        part = views[start : start + _VIEWS_AT_ONCE]
        encoded = model.encode(part)
        features += encoded
        descriptions += retriever.describe(part, encoded)
        report.update(f"{model.name}: photos that show the same things", len(features), len(views))
    return retriever.similarity(descriptions, descriptions), features


def _both_ways(pairs: Sequence[Pair]) -> list[Pair]:
    return list(dict.fromkeys([*pairs, *((j, i) for i, j in pairs)]))
