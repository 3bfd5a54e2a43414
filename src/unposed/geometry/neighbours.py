"""Exact nearest neighbours and mutual matches between two point sets, of points in space or of descriptors."""

import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

TREE_DIMENSIONS = 8
"""On the CPU a kd-tree wins up to about this many dimensions (150 times on surfaces in space); beyond, and on other
devices, blocked distances do."""
_BLOCK_BYTES = 64 * 2**20


def nearest_neighbours(
    query: Float[Tensor, "queries channels"], reference: Float[Tensor, "references channels"]
) -> Int[Tensor, "queries"]:
    """Index of the Euclidean nearest reference of every query, none left out; at most 64 MB of distances at a time.

    Blocked distances are rounded in the tensors' precision, so that of near-equal references any may win.
    """
    if query.device.type == "cpu" and query.shape[1] <= TREE_DIMENSIONS:
        _, index = cKDTree(reference.numpy()).query(query.numpy(), workers=-1)
        return torch.from_numpy(index)
    centre = reference.mean(0)
    query, reference = query - centre, reference - centre
    half_norm = reference.square().sum(1) / 2
    block = max(1, _BLOCK_BYTES // (4 * max(1, len(reference))))
    return torch.cat([(half_norm - part @ reference.T).argmin(1) for part in query.split(block)])


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
