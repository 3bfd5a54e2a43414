import numpy as np
import pytest

from unposed.align.kinematic import kinematic_tree


def _chain(count: int) -> np.ndarray:
    matches = np.zeros((count, count))
    for k in range(count - 1):
        matches[k, k + 1] = matches[k + 1, k] = 100
    return matches


def test_the_root_of_a_chain_is_in_its_middle() -> None:
    tree = kinematic_tree(_chain(7), np.full(7, 200), "mst")
    assert tree.root == 3
    assert {frozenset(edge) for edge in tree.edges} == {frozenset((k, k + 1)) for k in range(6)}
    assert [len(level) for level in tree.levels()] == [2, 2, 2]


@pytest.mark.parametrize("mode", ["mst", "hclust-ward"])
def test_every_photo_is_placed_once_after_its_parent(mode: str) -> None:
    generator = np.random.default_rng(0)
    matches = generator.integers(0, 300, (20, 20)).astype(float)
    tree = kinematic_tree(matches + matches.T, np.full(20, 150), mode)
    placed = {tree.root}
    for parent, child in tree.edges:
        assert parent in placed
        assert child not in placed
        placed.add(child)
    assert placed == set(range(20))


def test_clusters_join_photos_without_matches_and_a_spanning_tree_cannot() -> None:
    matches = np.zeros((4, 4))
    matches[0, 1] = matches[1, 0] = matches[2, 3] = matches[3, 2] = 50
    assert len(kinematic_tree(matches, np.full(4, 100)).edges) == 3
    with pytest.raises(ValueError, match="do not connect"):
        kinematic_tree(matches, np.full(4, 100), "mst")


def test_one_photo_is_its_own_tree() -> None:
    assert kinematic_tree(np.zeros((1, 1)), np.array([10])).edges == []


def test_unknown_trees_are_refused() -> None:
    with pytest.raises(ValueError, match="kinematic tree"):
        kinematic_tree(np.zeros((2, 2)), np.full(2, 10), "star")
