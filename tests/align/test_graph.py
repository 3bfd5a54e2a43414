from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unposed.align.graph import connected_components, make_pairs, read_pairs
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
