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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    query, reference = normal(0, 100, 16).to(dtype), normal(1, 80, 16).to(dtype)
    whole = nearest_neighbours(query, reference)
    monkeypatch.setattr(neighbours, "_QUERIES", 30)
    monkeypatch.setattr(neighbours, "_REFERENCES", 7)
    assert torch.equal(nearest_neighbours(query, reference), whole)
    assert torch.equal(torch.cdist(query.double(), reference.double()).argmin(1), whole)


@pytest.mark.parametrize("fast", [False, True])
def test_a_rough_search_first_finds_the_same(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(neighbours, "fast_bfloat16", lambda device: fast)
    monkeypatch.setattr(neighbours, "_REFERENCES", 16)
    reference = torch.nn.functional.normalize(normal(1, 3000, 24).float(), dim=-1)
    query = torch.nn.functional.normalize(reference[::7] + 0.02 * normal(2, len(reference[::7]), 24).float(), dim=-1)
    exact = torch.cdist(query.double(), reference.double()).argmin(1)
    assert torch.equal(nearest_neighbours(query, reference), exact)


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
