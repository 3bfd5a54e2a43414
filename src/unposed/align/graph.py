"""Which pairs of views to look at (DUSt3R's scene graphs), and which views they connect."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components as scipy_components

from unposed.errors import UserError
from unposed.views import Pair

_DEFAULT_ARGUMENT = {"swin": 3, "logwin": 3, "oneref": 0}


def make_pairs(graph: str, views: int, symmetrize: bool = True, prefilter: str | None = None) -> list[Pair]:
    """Ordered pairs (i, j), i != j, of a scene graph over ``views`` photos in sequence order.

    ``graph``: ``complete``; ``swin-W`` (each photo with its next W; default 3); ``logwin-W`` (with those 1, 2, 4, ...
    2^(W-1) away; default 3); ``oneref-R`` (photo R with all others; default 0). Windows wrap around, unless the name
    ends in ``-noncyclic``. ``symmetrize`` appends every (j, i). ``prefilter`` ``seqK`` / ``cycK`` keeps the pairs at
    most K apart in the sequence / in the closed sequence. A name that is none of these is a ``UserError``.
    """
    kind, argument, cyclic = _parse(graph)
    if kind == "complete":
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
            f"Unknown scene graph {graph!r}; use complete, swin-W, logwin-W (both also -noncyclic) or oneref-R."
        )
    return kind, int(number) if number else _DEFAULT_ARGUMENT.get(kind, 0), base == graph


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
