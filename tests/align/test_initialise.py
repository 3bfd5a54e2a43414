import math

import pytest
import torch
from torch import Tensor

from unposed.align.initialise import (
    average_potentials,
    average_rotations,
    cycle_support,
    maximum_spanning_tree,
)
from unposed.geometry.rotations import matrix_from_axis_angle, rotation_angle


def _rotation_graph(views: int, wrong: int, noise: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All unordered pairs in a random direction, relative rotations with noise, some of them nonsense; the truth."""
    generator = torch.Generator().manual_seed(seed)
    truth = matrix_from_axis_angle(torch.randn(views, 3, generator=generator))
    pairs = torch.combinations(torch.arange(views))
    flip = torch.rand(len(pairs), generator=generator) < 0.5
    pairs[flip] = pairs[flip].flip(1)
    relative = truth[pairs[:, 0]].mT @ truth[pairs[:, 1]]
    relative = relative @ matrix_from_axis_angle(noise * torch.randn(len(pairs), 3, generator=generator))
    bad = torch.randperm(len(pairs), generator=generator)[:wrong]
    relative[bad] = matrix_from_axis_angle(2 * torch.randn(wrong, 3, generator=generator))
    is_bad = torch.zeros(len(pairs), dtype=torch.bool)
    is_bad[bad] = True
    return pairs, relative, truth[0].T @ truth, is_bad


@pytest.mark.parametrize("seed", range(3))
def test_cycles_tell_wrong_pairs(seed: int) -> None:
    pairs, relative, _, wrong = _rotation_graph(10, 9, 0.02, seed)
    support = cycle_support(pairs, relative, torch.ones(len(pairs)), 10)
    assert support[wrong].max() < support[~wrong].min()


@pytest.mark.parametrize("seed", range(3))
def test_rotations_survive_a_fifth_of_wrong_pairs(seed: int) -> None:
    pairs, relative, truth, wrong = _rotation_graph(10, 9, 0.02, seed)
    weight = torch.where(wrong, 2.0, 1.0)  # the wrong ones are even the more confident
    support = cycle_support(pairs, relative, weight, 10)
    found = average_rotations(pairs, relative, weight, weight * (support + 1e-3), 10)
    assert rotation_angle(found.mT @ truth).max().rad2deg() < 2.0


def test_averaging_beats_every_single_pair() -> None:
    pairs, relative, truth, _ = _rotation_graph(12, 0, 0.05, 0)
    ones = torch.ones(len(pairs))
    found = average_rotations(pairs, relative, ones, ones, 12)
    true_relative = truth[pairs[:, 0]].mT @ truth[pairs[:, 1]]
    single = rotation_angle(relative.mT @ true_relative)
    averaged = rotation_angle((found[pairs[:, 0]].mT @ found[pairs[:, 1]]).mT @ true_relative)
    assert averaged.median() < 0.6 * single.median()


def test_potentials_ignore_outliers_and_anchor_view_zero() -> None:
    truth = torch.tensor([[0.0], [1.0], [3.0], [-2.0], [0.5]])
    pairs = torch.combinations(torch.arange(5))
    differences = truth[pairs[:, 0]] - truth[pairs[:, 1]]
    differences[3] += 10
    torch.testing.assert_close(average_potentials(pairs, differences, torch.ones(10), 5), truth, atol=1e-2, rtol=0)


def test_spanning_tree_takes_the_better_direction_of_the_best_pairs() -> None:
    pairs = torch.tensor([[0, 1], [1, 0], [1, 2], [2, 0], [3, 2]])
    tree = maximum_spanning_tree(pairs, torch.tensor([1.0, 5.0, 3.0, 2.0, 0.1]), 4)
    assert tree == [1, 2, 4]


def test_two_views_have_no_cycles() -> None:
    relative = matrix_from_axis_angle(torch.tensor([[0.0, 0.3, 0.0]]))
    pairs, weight = torch.tensor([[1, 0]]), torch.ones(1)
    assert cycle_support(pairs, relative, weight, 2).tolist() == [1.0]
    found = average_rotations(pairs, relative, weight, weight, 2)
    assert float(rotation_angle(found[1])) == pytest.approx(0.3, abs=1e-5)
    assert math.isclose(float(found[1, 0, 2]), -math.sin(0.3), abs_tol=1e-5)
