"""The kinematic tree of MASt3R-SfM (section 3.4): every camera is placed relative to its parent in a tree of pairs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial.distance import squareform

_MATCHES_PER_ANCHOR = 3
"""Matches a pair has at most, as a multiple of its smaller photo's anchors: the affinity is a share of it."""
_APART = 2.0
"""Distance of photos without matches in the clustering; that of photos with matches is at most 1."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class KinematicTree:
    """A rooted tree over all photos."""

    root: int
    edges: list[tuple[int, int]]
    """(parent, child), breadth first from the root."""

    def levels(self) -> list[list[tuple[int, int]]]:
        """The edges by distance of the child from the root, nearest first."""
        depth = {self.root: 0}
        found: list[list[tuple[int, int]]] = []
        for parent, child in self.edges:
            depth[child] = depth[parent] + 1
            if depth[child] > len(found):
                found.append([])
            found[-1].append((parent, child))
        return found


def kinematic_tree(matches: Matrix, anchors: NDArray[np.int64], mode: str = "hclust-ward") -> KinematicTree:
    """Tree over photos from how many matches every two have (symmetric matrix, 0: no pair).

    ``anchors`` holds the number of anchors of every photo. ``mst`` is the spanning tree with the most matches;
    ``hclust-<method>`` joins clusters by scipy's linkage and connects their representatives, which makes flatter and
    more robust trees. The root is a photo in the middle of the longest way through the tree.

    Raises:
        ValueError: an unknown mode, or ``mst`` with photos that no chain of matches connects.
    """
    if mode == "mst":
        tree = minimum_spanning_tree(csr_matrix(-np.asarray(matches)))
    elif mode.startswith("hclust-"):
        tree = _cluster_tree(_affinity(matches, anchors), mode.removeprefix("hclust-"))
    else:
        raise ValueError(f"a kinematic tree is 'mst' or 'hclust-<linkage>', not {mode!r}")
    return _rooted(tree, len(matches))


def _affinity(matches: Matrix, anchors: NDArray[np.int64]) -> Matrix:
    most = _MATCHES_PER_ANCHOR * np.minimum(anchors[:, None], anchors)
    affinity: Matrix = np.minimum(1.0, np.asarray(matches, np.float64) / most)
    np.fill_diagonal(affinity, 1.0)
    return affinity


def _cluster_tree(affinity: Matrix, method: str) -> csr_matrix:
    """Edges between the representatives of the clusters that each merge joins."""
    count = len(affinity)
    if count == 1:
        return csr_matrix((1, 1))
    distance = np.where(affinity > 0, 1 - affinity, _APART)
    np.fill_diagonal(distance, 0.0)
    rows = affinity.copy()
    representative = list(range(count))
    edges = []
    for first, second, *_ in linkage(squareform(distance, checks=False), method):
        a, b = representative[int(first)], representative[int(second)]
        edges.append((a, b))
        best = a if rows[a].sum() > rows[b].sum() else b
        rows[best] = np.maximum(rows[a], rows[b])
        representative.append(best)
    smaller, larger = np.sort(edges).T
    return csr_matrix((np.ones(len(edges)), (smaller, larger)), shape=(count, count))


def _rooted(tree: csr_matrix, count: int) -> KinematicTree:
    def visit(start: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        order, parents = breadth_first_order(tree, start, directed=False)
        return order, parents

    def ranks(order: NDArray[np.int32]) -> NDArray[np.int64]:
        rank = np.empty(count, np.int64)
        rank[order] = np.arange(count)
        return rank

    order, _ = visit(0)
    if len(order) < count:
        raise ValueError("the matches do not connect all photos")
    from_end, _ = visit(int(order[-1]))
    from_other_end, _ = visit(int(from_end[-1]))
    root = int(np.minimum(ranks(from_end), ranks(from_other_end)).argmax())
    order, parents = visit(root)
    return KinematicTree(root, [(int(parents[child]), int(child)) for child in order[1:]])
