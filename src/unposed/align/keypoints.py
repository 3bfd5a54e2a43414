"""Keypoints of every view from the matches of many pairs: the same place in a view is one keypoint."""

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
    rows: list[np.ndarray] = [np.zeros((0, 3))]
    for (i, j), found in matches.items():
        for view, points in ((i, found.points_a), (j, found.points_b)):
            rows.append(np.column_stack([np.full(len(points), view), points.double().numpy()]))
    table = np.concatenate(rows)
    quantised = np.column_stack([table[:, 0], np.rint(table[:, 1:] * QUANTUM)]).astype(np.int64)
    keys, first, inverse = np.unique(quantised, axis=0, return_index=True, return_inverse=True)
    blocks = np.split(inverse.reshape(-1), np.cumsum([len(block) for block in rows]))[1:-1]
    links = [torch.from_numpy(np.column_stack([a, b])) for a, b in zip(blocks[::2], blocks[1::2], strict=True)]
    return Keypoints(
        torch.from_numpy(keys[:, 0].copy()),
        torch.from_numpy(table[first, 1:]).float(),
        dict(zip(matches, links, strict=True)),
    )


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
