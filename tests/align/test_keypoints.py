import torch

from unposed.align.keypoints import merge_keypoints, one_to_one
from unposed.views import Matches


def _matches(a: list[list[float]], b: list[list[float]]) -> Matches:
    return Matches(torch.tensor(a), torch.tensor(b), torch.ones(len(a)))


def test_the_same_place_in_two_pairs_is_one_keypoint() -> None:
    merged = merge_keypoints(
        {
            (0, 1): _matches([[5.25, 7.5], [1.0, 2.0]], [[3.0, 3.0], [4.0, 4.0]]),
            (0, 2): _matches([[5.25, 7.51], [9.0, 9.0]], [[6.0, 6.0], [8.0, 8.0]]),
            (1, 2): _matches([[4.0, 4.0]], [[8.0, 8.0]]),
        }
    )
    assert [len(merged.of_view(k)) for k in range(3)] == [3, 2, 2]
    for pair, a, b in (((0, 1), 0, 1), ((0, 2), 0, 2), ((1, 2), 1, 2)):
        rows = merged.links_of_views(pair)
        assert rows.min() >= 0
        assert len(merged.of_view(a)[rows[:, 0]]) == len(merged.of_view(b)[rows[:, 1]])
    first, second = merged.links_of_views((0, 1))[0, 0], merged.links_of_views((0, 2))[0, 0]
    assert first == second
    torch.testing.assert_close(merged.of_view(0)[first], torch.tensor([5.25, 7.5]), atol=0.02, rtol=0)
    assert merged.of_view(2)[merged.links_of_views((1, 2))[0, 1]].tolist() == [8.0, 8.0]


def test_no_matches_are_no_keypoints() -> None:
    merged = merge_keypoints({(0, 1): Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))})
    assert len(merged.of_view(0)) == 0
    assert merged.links_of_views((0, 1)).shape == (0, 2)
    assert len(merge_keypoints({}).view) == 0


def test_one_to_one_keeps_the_most_confident() -> None:
    links = torch.tensor([[0, 0], [0, 1], [1, 1], [2, 2], [3, 2]])
    kept = one_to_one(links, torch.tensor([0.5, 0.9, 0.8, 0.1, 0.2]))
    assert kept.tolist() == [1, 4]
