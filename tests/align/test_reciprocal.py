"""Fast reciprocal matching: what it finds is mutual, whatever it starts from."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from unposed.align.reciprocal import ReciprocalMatcher, match_both_ways, match_symmetric, start_grid
from unposed.views import PairPrediction


def _unit(seed: int, *shape: int) -> Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_matches_are_mutual_nearest_neighbours() -> None:
    a, b = _unit(0, 12, 16, 10), _unit(1, 10, 20, 10)
    similarity = a.flatten(0, 1) @ b.flatten(0, 1).T
    for from_b in (False, True):
        i, j = ReciprocalMatcher(a, b).match(3, from_b=from_b)
        assert len(i) > 10
        assert torch.equal(similarity[i].argmax(1), j)
        assert torch.equal(similarity[:, j].argmax(0), i)


def test_moved_pixels_are_found_again_from_a_sparse_grid() -> None:
    a = _unit(0, 24, 32, 16)
    b = torch.roll(a, (2, 5), (0, 1))
    matches = match_both_ways(a, b, torch.ones(24, 32), torch.full((24, 32), 2.0), stride=4)
    assert len(matches.points_a) >= 48
    expected = (matches.points_a + torch.tensor([5.0, 2.0])) % torch.tensor([32.0, 24.0])
    torch.testing.assert_close(matches.points_b, expected)
    assert bool((matches.confidence == 1).all())


def test_a_way_back_that_ends_near_is_enough_with_a_tolerance() -> None:
    a, b = _unit(0, 8, 8, 4), _unit(1, 8, 8, 4)
    start = start_grid(8, 8, 1)
    exact, near = (len(ReciprocalMatcher(a, b).match_from(start, tolerance)[0]) for tolerance in (0.0, 3.0))
    assert 0 < exact < near


def test_both_orders_of_a_pair_count_once() -> None:
    a = _unit(0, 16, 16, 8)
    conf, none = torch.full((16, 16), 4.0), torch.zeros(16, 16, 3)
    one = PairPrediction(none, none, conf, conf, a, a, None, conf, conf)
    matches = match_symmetric(one, one, stride=4)
    assert len(matches.points_a) == 16
    assert torch.equal(matches.points_a, matches.points_b)
    assert bool((matches.confidence == 4).all())


def test_predictions_without_descriptors_cannot_be_matched_by_them() -> None:
    nothing = torch.zeros(4, 4)
    bare = PairPrediction(torch.zeros(4, 4, 3), torch.zeros(4, 4, 3), nothing, nothing)
    with pytest.raises(ValueError, match="descriptors"):
        match_symmetric(bare, bare)
