import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.strategies import normal, seeds
from unposed.geometry import neighbours
from unposed.geometry.neighbours import mutual_neighbours, nearest_neighbours


@given(seeds, st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 3, 8, 9, 24]))
def test_nearest_is_nearest(seed: int, queries: int, references: int, channels: int) -> None:
    query, reference = normal(seed, queries, channels), normal(seed + 1, references, channels)
    found = nearest_neighbours(query, reference)
    distances = torch.cdist(query, reference)
    torch.testing.assert_close(distances.gather(1, found[:, None])[:, 0], distances.amin(1), atol=1e-9, rtol=0)


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    query, reference = normal(0, 100, 16), normal(1, 80, 16)
    whole = nearest_neighbours(query, reference)
    monkeypatch.setattr(neighbours, "_BLOCK_BYTES", 80 * 4 * 7)
    assert torch.equal(nearest_neighbours(query, reference), whole)


@given(seeds, st.integers(1, 30), st.integers(1, 30))
def test_matches_are_mutual_and_none_is_missed(seed: int, count_a: int, count_b: int) -> None:
    a, b = normal(seed, count_a, 3), normal(seed + 1, count_b, 3)
    index_a, index_b = mutual_neighbours(a, b)
    distances = torch.cdist(a, b)
    best = distances.argmin(1).tolist()
    expected = {(i, j) for i, j in enumerate(best) if distances[:, j].argmin() == i}
    assert set(zip(index_a.tolist(), index_b.tolist(), strict=True)) == expected


def test_shuffled_points_find_themselves() -> None:
    points, order = normal(0, 500, 3), torch.randperm(500, generator=torch.Generator().manual_seed(1))
    index_a, index_b = mutual_neighbours(points, points[order])
    assert len(index_a) == 500
    assert torch.equal(order[index_b], index_a)


def test_nothing_matches_nothing() -> None:
    index_a, index_b = mutual_neighbours(torch.zeros(0, 3), torch.ones(4, 3))
    assert len(index_a) == len(index_b) == 0
