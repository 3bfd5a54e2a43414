"""Which pairs of views to look at (scene graphs of DUSt3R and MASt3R-SfM), and which views they connect."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components as scipy_components
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor

from unposed.errors import UserError
from unposed.views import Pair

_DEFAULT_ARGUMENT = {"swin": 3, "logwin": 3, "oneref": 0}
_RETRIEVAL = re.compile(r"retrieval(?:-(\d+)-(\d+))?")
_KEY_VIEWS, _NEIGHBOURS = 20, 10
_FREE = 0.5
"""What an edge that is there already costs a spanning tree in which new ones cost at least 1."""


def make_pairs(
    graph: str,
    views: int,
    symmetrize: bool = True,
    prefilter: str | None = None,
    similarity: Float[Tensor, "views views"] | None = None,
) -> list[Pair]:
    """Ordered pairs (i, j), i != j, of a scene graph over ``views`` photos in sequence order.

    ``graph``: ``complete``; ``swin-W`` (each photo with its next W; default 3); ``logwin-W`` (with those 1, 2, 4, ...
    2^(W-1) away; default 3); ``oneref-R`` (photo R with all others; default 0). Windows wrap around, unless the name
    ends in ``-noncyclic``. ``retrieval-A-K`` (see ``retrieval_pairs``; default 20 and 10) needs the ``similarity`` of
    the photos. ``symmetrize`` appends every (j, i). ``prefilter`` ``seqK`` / ``cycK`` keeps the pairs at most K apart
    in the sequence / in the closed sequence. A name that is none of these is a ``UserError``.
    """
    kind, argument, cyclic = _parse(graph)
    if kind == "retrieval":
        if similarity is None:
            raise UserError(f"Scene graph {graph!r} needs to know which photos are alike; choose another one here.")
        pairs = retrieval_pairs(similarity, *_retrieval_numbers(graph))
    elif kind == "complete":
        pairs = [(i, j) for i in range(views) for j in range(i)]
    elif kind == "oneref":
        if argument >= views:
            raise UserError(f"Scene graph {graph!r} refers to photo {argument}; choose one of 0 to {views - 1}.")
        pairs = [(argument, j) for j in range(views) if j != argument]
    else:
        steps = [2**k for k in range(argument)] if kind == "logwin" else list(range(1, argument + 1))
        pairs = _window(views, steps, cyclic)
    if symmetrize:
        pairs = pairs + [(j, i) for i, j in pairs]
    return pairs if prefilter is None else _prefilter(pairs, views, prefilter)


def needs_similarity(graph: str) -> bool:
    """Whether ``make_pairs`` needs the similarity of the photos for this scene graph."""
    return _RETRIEVAL.fullmatch(graph) is not None


def retrieval_pairs(
    similarity: Float[Tensor, "views views"] | ArrayLike, key_views: int, neighbours: int, start: int | None = None
) -> list[Pair]:
    """MASt3R-SfM's scene graph (3DV 2025, section 4.1): linear in the number of views, each unordered pair once.

    ``key_views`` views that differ most are paired among themselves, every other view with the key view most like it,
    and every view with those that are most like it: the first ``neighbours`` of its row, of which the view itself
    normally is one. Row i of ``similarity`` says what view i, as a query, is like.

    Pairs among key views are (earlier chosen, later chosen), all others (smaller, larger). The graph may be in pieces.
    """
    distance = 1 - np.asarray(similarity, dtype=np.float32)
    pairs: dict[Pair, None] = {}

    def add(i: int, j: int) -> None:
        if i != j and (i, j) not in pairs and (j, i) not in pairs:
            pairs[i, j] = None

    if key_views > 0:
        key, _ = farthest_points(distance, key_views, start)
        for position, i in enumerate(key):
            for j in key[position + 1 :]:
                add(i, j)
        for i in sorted(set(range(len(distance))) - set(key)):
            nearest = key[int(distance[i, key].argmin())]
            add(min(i, nearest), max(i, nearest))
    for i, order in enumerate(distance.argsort(axis=1)):
        for j in order[:neighbours].tolist():
            add(min(i, j), max(i, j))
    return list(pairs)


def farthest_points(
    distance: NDArray[np.float32], count: int, start: int | None = None, nearest: float | None = None
) -> tuple[list[int], list[float]]:
    """Farthest point sampling: each next point is the one farthest from those chosen; and how far that was.

    It begins with ``start``, by default the point with the smallest sum of distances, and ends with ``count`` points,
    all of them, or where the next point is closer than ``nearest``. ``distance[i, j]`` is how far j is from i.
    """
    chosen = [int(distance.sum(axis=1).argmin()) if start is None else start]
    when = [0.0]
    closest = distance[chosen[0]].copy()
    while len(chosen) < min(count, len(distance)):
        closest[chosen[-1]] = -np.inf
        following = int(closest.argmax())
        if nearest is not None and closest[following] < nearest:
            break
        chosen.append(following)
        when.append(float(closest[following]))
        closest = np.minimum(closest, distance[following])
    return chosen, when


def loop_pairs(similarity: Float[Tensor, "views views"] | ArrayLike, apart: int, count: int) -> list[Pair]:
    """Where a sequence comes back to a place: for every view the ``count`` most like it, not around one another.

    The views of a pair, and those that one view is paired with, are more than ``apart`` steps away from each other.
    """
    alike = np.asarray(similarity, dtype=np.float64)
    steps = np.arange(len(alike))
    open_ = np.where(np.abs(steps[:, None] - steps) > apart, np.maximum(alike, alike.T), -np.inf)
    pairs: dict[Pair, None] = {}
    for _ in range(count):
        best = open_.argmax(axis=1)
        for i in np.flatnonzero(open_.max(axis=1, initial=-np.inf) > 0).tolist():
            pairs[min(i, int(best[i])), max(i, int(best[i]))] = None
        open_[np.abs(best[:, None] - steps) <= apart] = -np.inf
    return list(pairs)


def connecting_pairs(similarity: Float[Tensor, "views views"] | ArrayLike, pairs: Iterable[Pair]) -> list[Pair]:
    """The fewest further pairs that make one piece of what ``pairs`` connects, of the views most alike."""
    alike = np.asarray(similarity, dtype=np.float64)
    cost = 2 - np.maximum(alike, alike.T)
    for i, j in pairs:
        cost[i, j] = cost[j, i] = _FREE
    tree = minimum_spanning_tree(np.triu(cost, 1)).tocoo()
    new = tree.data > _FREE
    return list(zip(tree.row[new].tolist(), tree.col[new].tolist(), strict=True))


def read_pairs(path: Path, names: Sequence[str]) -> list[Pair]:
    """Pairs listed in a text file, two photo names on a line, blank lines and ``#`` comments skipped.

    Names are those of the views (``names``). An unknown name, or a line that has not two names, is a ``UserError``.
    """
    index = {name: i for i, name in enumerate(names)}
    pairs: dict[Pair, None] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the pair list {path}: {error}; give a UTF-8 text file.") from error
    for number, line in enumerate(lines, 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) != 2 or words[0] == words[1]:
            raise UserError(f"{path}, line {number}: write two different photo names, separated by a space.")
        for word in words:
            if word not in index:
                raise UserError(
                    f"{path}, line {number}: no photo is called {word!r}; use names as in the photo folder."
                )
        pairs[index[words[0]], index[words[1]]] = None
    return list(pairs)


def connected_components(views: int, pairs: Iterable[Pair]) -> list[list[int]]:
    """Views that the pairs connect, directly or through others: sorted lists, largest first, then by first view."""
    edges = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    matrix = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(views, views))
    count, labels = scipy_components(matrix, directed=False)
    components = [np.flatnonzero(labels == label).tolist() for label in range(count)]
    return sorted(components, key=lambda members: (-len(members), members[0]))


def _parse(graph: str) -> tuple[str, int, bool]:
    """(kind, number, cyclic) of a scene graph's name."""
    if needs_similarity(graph):
        return "retrieval", 0, False
    base = graph.removesuffix("-noncyclic")
    kind, _, number = base.partition("-")
    known = kind in _DEFAULT_ARGUMENT or (graph == "complete")
    windowed = kind in ("swin", "logwin")
    smallest = 1 if windowed else 0
    if (
        not known
        or (number and not (number.isdecimal() and int(number) >= smallest))
        or (base != graph and not windowed)
    ):
        raise UserError(
            f"Unknown scene graph {graph!r}; use complete, swin-W, logwin-W (both also -noncyclic), oneref-R or "
            "retrieval-A-K."
        )
    return kind, int(number) if number else _DEFAULT_ARGUMENT.get(kind, 0), base == graph


def _retrieval_numbers(graph: str) -> tuple[int, int]:
    """Key views and neighbours of ``retrieval-A-K``."""
    match = _RETRIEVAL.fullmatch(graph)
    assert match is not None
    return (int(match[1]), int(match[2])) if match[1] else (_KEY_VIEWS, _NEIGHBOURS)


def _window(views: int, steps: Iterable[int], cyclic: bool) -> list[Pair]:
    """Unordered pairs at the given distances, each once, as (smaller, larger)."""
    pairs: dict[Pair, None] = {}
    for i in range(views):
        for step in steps:
            j = (i + step) % views if cyclic else i + step
            if j < views and j != i:
                pairs[min(i, j), max(i, j)] = None
    return list(pairs)


def _prefilter(pairs: list[Pair], views: int, prefilter: str) -> list[Pair]:
    kind, number = prefilter[:3], prefilter[3:]
    if kind not in ("seq", "cyc") or not number.isdecimal():
        raise UserError(f"Unknown pair filter {prefilter!r}; use seqK or cycK with a number K.")

    def distance(pair: Pair) -> int:
        apart = abs(pair[0] - pair[1])
        return min(apart, views - apart) if kind == "cyc" else apart

    return [pair for pair in pairs if distance(pair) <= int(number)]
