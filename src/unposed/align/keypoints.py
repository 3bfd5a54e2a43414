"""Keypoints of every view from the matches of many pairs: the same place in a view is one keypoint."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unposed.views import Matches, Pair

QUANTUM = 16
"""Places closer than about 1/16 pixel are one."""


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Distinct places of all views, sorted by view, and the matches as pairs of rows of them."""

    view: Int64[Tensor, "n"]
    pixel: Float[Tensor, "n 2"]
    links: Mapping[Pair, Int64[Tensor, "matches 2"]]
    """Of each pair, for each of its matches: row of the place in view a, row of the place in view b."""

    def of_view(self, view: int) -> Float[Tensor, "m 2"]:
        """Keypoints of one view, in the order that ``links_of_views`` counts in."""
        return self.pixel[self.view == view]

    def links_of_views(self, pair: Pair) -> Int64[Tensor, "matches 2"]:
        """The links of a pair, counted within the keypoints of each view."""
        first = torch.searchsorted(self.view, torch.tensor(pair))
        return self.links[pair] - first


def merge_keypoints(matches: Mapping[Pair, Matches]) -> Keypoints:
    """Keypoints of all views and the matches between them."""
    places: dict[int, list[np.ndarray]] = defaultdict(list)
    for (i, j), found in matches.items():
        places[i].append(found.points_a.double().numpy())
        places[j].append(found.points_b.double().numpy())
    views, pixels, rows, count = [], [], {}, 0
    for view in sorted(places):
        blocks = places[view]
        kept, inverse = _distinct(np.concatenate(blocks))
        rows[view] = iter(np.split(inverse + count, np.cumsum([len(block) for block in blocks])[:-1]))
        views.append(np.full(len(kept), view))
        pixels.append(kept)
        count += len(kept)
    links = {(i, j): torch.from_numpy(np.column_stack([next(rows[i]), next(rows[j])])) for i, j in matches}
    return Keypoints(
        torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *views])),
        torch.from_numpy(np.concatenate([np.zeros((0, 2)), *pixels])).float(),
        links,
    )


def _distinct(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of every group of places (n, 2) that are one, by x and then y, and the group of each place."""
    quantised = np.rint(places * QUANTUM).astype(np.int64)
    keys = (quantised[:, 0] << 32) + quantised[:, 1]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return places[first], inverse.reshape(-1)


def one_to_one(links: Int64[Tensor, "matches 2"], confidence: Float[Tensor, "matches"]) -> Int64[Tensor, "kept"]:
    """Indices of the matches to keep so that no keypoint is in two of them, the most confident ones first."""
    taken: tuple[set[int], set[int]] = (set(), set())
    kept = []
    for k in confidence.argsort(descending=True, stable=True).tolist():
        a, b = links[k].tolist()
        if a not in taken[0] and b not in taken[1]:
            taken[0].add(a)
            taken[1].add(b)
            kept.append(k)
    return torch.tensor(sorted(kept), dtype=torch.int64)
