"""Exact nearest neighbours and mutual matches between two point sets, of points in space or of descriptors."""

import math

import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from unposed.hardware import fast_bfloat16, in_parallel

TREE_DIMENSIONS = 8
"""On the CPU a kd-tree wins up to about this many dimensions (150 times on surfaces in space); beyond, and on other
devices, blocked distances do."""
_QUERIES, _REFERENCES = 1024, 2048
"""Sides of a block of scores on the CPU: it stays in the cache."""
_GPU_BLOCK_BYTES = 256 * 2**20


class NeighbourIndex:
    """Points prepared for many queries of their Euclidean nearest; none is left out, memory stays bounded.

    Distances are rounded in the tensors' precision, so that of near-equal references any may win.
    """

    def __init__(self, reference: Float[Tensor, "references channels"]) -> None:
        self._tree = None
        if reference.device.type == "cpu" and reference.shape[1] <= TREE_DIMENSIONS:
            self._tree = cKDTree(reference.numpy())
            return
        self._centre = reference.mean(0)
        reference = reference - self._centre
        # The nearest r has the largest score q.r - |r|^2 / 2: one inner product when the last term is a channel.
        lifted = torch.cat([reference, -reference.square().sum(1, keepdim=True) / 2], 1)
        self._columns = lifted.T.contiguous()
        self._largest = lifted.norm(dim=1).max() if len(lifted) else lifted.new_zeros(())
        half = reference.dtype == torch.float32 and reference.device.type == "cpu" and fast_bfloat16(reference.device)
        self._coarse = self._columns.to(torch.bfloat16) if half else self._columns
        # bfloat16 rounds each factor and the sum by at most 2^-8 of it: together below 2^-6 of the norms' product.
        self._rounding = 2.0**-6 if half else 8 * torch.finfo(reference.dtype).eps

    def nearest(self, query: Float[Tensor, "queries channels"]) -> Int[Tensor, "queries"]:
        """Index of the nearest reference of every query."""
        if self._tree is not None:
            return torch.from_numpy(self._tree.query(query.numpy(), workers=-1)[1])
        query = query - self._centre
        lifted = torch.cat([query, query.new_ones(len(query), 1)], 1)
        if query.device.type != "cpu":
            rows = max(1, _GPU_BLOCK_BYTES // (4 * max(1, self._columns.shape[1])))
            return torch.cat([(part @ self._columns).argmax(1) for part in lifted.split(rows)])
        rows = min(_QUERIES, math.ceil(len(query) / torch.get_num_threads()))
        return torch.cat(in_parallel(self._search, lifted.split(max(1, rows))))

    def _search(self, query: Float[Tensor, "queries channels+1"]) -> Int[Tensor, "queries"]:
        """Largest score of every block first, roughly; then exactly, in the blocks that may hold the largest of all."""
        coarse = query.to(self._coarse.dtype)
        highest = torch.stack([(coarse @ part).amax(1) for part in self._coarse.split(_REFERENCES, 1)], 1).to(query)
        slack = 2 * self._rounding * self._largest * query.norm(dim=1, keepdim=True)
        possible = highest >= highest.amax(1, keepdim=True) - slack
        best, index = query.new_full((len(query),), -torch.inf), torch.zeros(len(query), dtype=torch.int64)
        for k, part in enumerate(self._columns.split(_REFERENCES, 1)):
            rows = possible[:, k].nonzero()[:, 0]
            if len(rows):
                score, where = (query[rows] @ part).max(1)
                better = score > best[rows]
                best[rows[better]], index[rows[better]] = score[better], where[better] + k * _REFERENCES
        return index


def nearest_neighbours(
    query: Float[Tensor, "queries channels"], reference: Float[Tensor, "references channels"]
) -> Int[Tensor, "queries"]:
    """Index of the Euclidean nearest reference of every query; see ``NeighbourIndex``."""
    return NeighbourIndex(reference).nearest(query)


def mutual_neighbours(
    points_a: Float[Tensor, "a channels"], points_b: Float[Tensor, "b channels"]
) -> tuple[Int[Tensor, "matches"], Int[Tensor, "matches"]]:
    """Indices (into a, into b) of the pairs that are each other's nearest neighbour (DUSt3R, section 3.3)."""
    if len(points_a) == 0 or len(points_b) == 0:
        empty = torch.zeros(0, dtype=torch.int64, device=points_a.device)
        return empty, empty
    b_of_a = nearest_neighbours(points_a, points_b)
    a_of_b = nearest_neighbours(points_b, points_a)
    index_b = torch.arange(len(points_b), device=points_b.device)
    mutual = b_of_a[a_of_b] == index_b
    return a_of_b[mutual], index_b[mutual]
