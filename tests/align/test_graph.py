from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unposed.align.graph import (
    connected_components,
    connecting_pairs,
    farthest_points,
    loop_pairs,
    make_pairs,
    needs_similarity,
    read_pairs,
    retrieval_pairs,
)
from unposed.errors import UserError

GRAPHS = ["complete", "swin", "swin-2", "swin-3-noncyclic", "logwin", "logwin-4", "logwin-3-noncyclic", "oneref-1"]


@pytest.mark.parametrize("graph", GRAPHS)
@given(views=st.integers(2, 20), symmetrize=st.booleans())
def test_pairs_are_proper_unique_and_connect_all_views(graph: str, views: int, symmetrize: bool) -> None:
    pairs = make_pairs(graph, views, symmetrize)
    assert len(set(pairs)) == len(pairs)
    assert all(i != j and 0 <= i < views and 0 <= j < views for i, j in pairs)
    assert connected_components(views, pairs) == [list(range(views))]
    if symmetrize:
        assert {(j, i) for i, j in pairs} == set(pairs)
    else:
        assert not {(j, i) for i, j in pairs} & set(pairs)


def test_windows() -> None:
    assert set(make_pairs("swin-2", 6, symmetrize=False)) == {
        (0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (3, 5), (4, 5), (0, 4), (0, 5), (1, 5),
    }  # fmt: skip
    assert set(make_pairs("swin-1-noncyclic", 4, symmetrize=False)) == {(0, 1), (1, 2), (2, 3)}
    assert set(make_pairs("logwin-3-noncyclic", 6, symmetrize=False)) == {
        (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 2), (1, 3), (2, 4), (3, 5), (0, 4), (1, 5),
    }  # fmt: skip


def test_prefilters() -> None:
    assert all(abs(i - j) <= 2 for i, j in make_pairs("complete", 8, prefilter="seq2"))
    cyclic = make_pairs("complete", 8, prefilter="cyc1")
    assert (7, 0) in cyclic
    assert len(cyclic) == 16


@pytest.mark.parametrize(
    "graph", ["full", "swin-0", "swin-x", "swin--1", "complete-2", "complete-noncyclic", "oneref-1-noncyclic", ""]
)
def test_unknown_graphs_are_refused(graph: str) -> None:
    with pytest.raises(UserError, match="scene graph"):
        make_pairs(graph, 5)


def test_a_reference_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="0 to 4"):
        make_pairs("oneref-5", 5)
    with pytest.raises(UserError, match="pair filter"):
        make_pairs("complete", 5, prefilter="near3")


def test_components_are_sorted() -> None:
    assert connected_components(7, [(6, 5), (1, 2), (2, 0)]) == [[0, 1, 2], [5, 6], [3], [4]]
    assert connected_components(2, []) == [[0], [1]]


def test_pair_lists(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg"]
    listed = tmp_path / "pairs.txt"
    listed.write_text("# matched by hand\na.jpg b.jpg\n\nc.jpg a.jpg  # far\na.jpg b.jpg\n")
    assert read_pairs(listed, names) == [(0, 1), (2, 0)]
    for text, message in (("a.jpg d.jpg", "line 1"), ("a.jpg", "two different"), ("a.jpg a.jpg", "two different")):
        listed.write_text(text)
        with pytest.raises(UserError, match=message):
            read_pairs(listed, names)
    with pytest.raises(UserError, match="Cannot read"):
        read_pairs(tmp_path / "none.txt", names)


def _along_a_line(places: list[float]) -> np.ndarray:
    """Similarity of photos taken at places on a line: falls from 0.5 to nothing within a distance of 10."""
    at = np.array(places)
    return np.clip(0.5 - np.abs(at[:, None] - at) / 20, 0, None)


def test_retrieval_pairs_are_neighbours_and_key_views() -> None:
    similarity = _along_a_line([0, 1, 2, 10, 11, 12])
    assert set(retrieval_pairs(similarity, 0, 2)) == {(0, 1), (1, 2), (3, 4), (4, 5)}
    with_keys = set(retrieval_pairs(similarity, 2, 2, start=0))
    assert with_keys - {(0, 1), (1, 2), (3, 4), (4, 5)} == {(0, 3), (0, 2), (3, 5)}
    assert make_pairs("retrieval-0-2", 6, False, similarity=similarity) == retrieval_pairs(similarity, 0, 2)
    assert len(make_pairs("retrieval", 6, similarity=similarity)) == 30


@given(views=st.integers(2, 40), key=st.integers(0, 40), neighbours=st.integers(0, 12), seed=st.integers(0, 99))
def test_retrieval_pairs_grow_linearly_and_never_repeat(views: int, key: int, neighbours: int, seed: int) -> None:
    similarity = np.random.default_rng(seed).random((views, views))
    pairs = retrieval_pairs(similarity, key, neighbours)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert all(i != j for i, j in pairs)
    keys = min(key, views)
    assert len(pairs) <= keys * (keys - 1) // 2 + views + views * neighbours
    if key:
        assert connected_components(views, pairs) == [list(range(views))]


def test_farthest_points_spread_and_stop() -> None:
    at = np.array([0.0, 1.0, 2.0, 9.0, 10.0])
    distance = np.abs(at[:, None] - at)
    assert farthest_points(distance, 3, start=0) == ([0, 4, 2], [0.0, 10.0, 2.0])
    assert farthest_points(distance, 9, start=0, nearest=1.5)[0] == [0, 4, 2]
    assert sorted(farthest_points(distance, 9)[0]) == [0, 1, 2, 3, 4]


def test_pieces_are_connected_by_their_most_similar_photos() -> None:
    similarity = _along_a_line([0, 1, 2, 8, 9, 30])
    pairs = [(0, 1), (2, 1), (4, 3)]
    assert (2, 3) in (new := connecting_pairs(similarity, pairs))
    assert len(new) == 2
    assert connected_components(6, [*pairs, *new]) == [list(range(6))]
    assert connecting_pairs(similarity, [*pairs, *new]) == []


def test_loops_are_where_a_sequence_comes_back() -> None:
    there_and_back = [*range(0, 60, 2), *range(59, -1, -2)]
    pairs = loop_pairs(_along_a_line([float(place) for place in there_and_back]), apart=8, count=1)
    assert pairs
    assert all(j - i > 8 for i, j in pairs)
    assert all((i, j) in pairs for i, j in ((0, 59), (10, 49)))
    assert loop_pairs(_along_a_line([100.0 * k for k in range(30)]), 8, 3) == []


def test_retrieval_needs_the_similarity() -> None:
    assert needs_similarity("retrieval-20-10")
    assert needs_similarity("retrieval")
    assert not needs_similarity("complete")
    with pytest.raises(UserError, match="which photos are alike"):
        make_pairs("retrieval-20-10", 5)
    with pytest.raises(UserError, match="scene graph"):
        make_pairs("retrieval-20", 5)
