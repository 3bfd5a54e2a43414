"""Matches of predictions: a model's own, by descriptors, by points; and without depth where a model can do without."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.models import tiny
from unposed.align.matching import (
    BORDER,
    matches_both_ways,
    matches_of_pixels,
    pair_matches,
    predict_matches,
    with_matches,
)
from unposed.geometry.cameras import pixel_grid
from unposed.io.pairs_cache import PairCache
from unposed.models.base import MatchModel
from unposed.models.classic import Classic
from unposed.synth import render_scenes
from unposed.views import Matches, Pair, PairPrediction, View

HEIGHT, WIDTH = 32, 48
SHIFT = torch.tensor([5, 2])
FOCAL = 40.0


def moved(descriptors: bool = True, seed: int = 0) -> PairPrediction:
    """View j is view i, moved by ``SHIFT`` pixels; a wall of random bumps, so that points are told apart in space."""
    generator = torch.Generator().manual_seed(seed)
    unit = normalize(torch.randn(HEIGHT, WIDTH, 12, generator=generator), dim=-1)
    depth = 2 + torch.rand(HEIGHT, WIDTH, generator=generator)
    pixels = pixel_grid(HEIGHT, WIDTH) - torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    points = torch.cat([pixels / FOCAL, torch.ones(HEIGHT, WIDTH, 1)], -1) * depth[..., None]
    sure = 2 + torch.rand(HEIGHT, WIDTH, generator=generator)
    given = {}
    if descriptors:
        given = {
            "descriptors_i": unit,
            "descriptors_j": roll(unit),
            "descriptor_confidence_i": sure / 10,
            "descriptor_confidence_j": roll(sure) / 5,
        }
    return PairPrediction(points, roll(points), sure, roll(sure), **given)


def roll(image: Tensor) -> Tensor:
    return torch.roll(image, (int(SHIFT[1]), int(SHIFT[0])), (0, 1))


def backward(prediction: PairPrediction) -> PairPrediction:
    """The same pair in the other order."""
    names = ("points", "confidence", "descriptors", "descriptor_confidence")
    values = {f"{n}_{side}": getattr(prediction, f"{n}_{'ji'['ij'.index(side)]}") for n in names for side in "ij"}
    return replace(prediction, **values)


def assert_moved(matches: Matches) -> None:
    expected = (matches.points_a + SHIFT) % torch.tensor([WIDTH, HEIGHT])
    torch.testing.assert_close(matches.points_b, expected)


def test_descriptors_are_matched_from_the_grids_of_both_views_and_off_the_border() -> None:
    given = moved()
    found = pair_matches(given, stride=4)
    assert_moved(found)
    on_grid_a = (found.points_a % 4 == 2).all(-1)
    on_grid_b = (found.points_b % 4 == 2).all(-1)
    assert bool((on_grid_a | on_grid_b).all())
    assert int(on_grid_a.sum()) == 54  # of 12 x 8, those off both borders
    assert int(on_grid_b.sum()) == 54
    for pixels in (found.points_a, found.points_b):
        assert bool((pixels >= BORDER).all())
        assert bool((pixels < torch.tensor([WIDTH, HEIGHT]) - BORDER).all())
    x, y = found.points_a.long().unbind(-1)
    torch.testing.assert_close(found.confidence, given.descriptor_confidence_i[y, x])  # the less sure of the two


def test_both_orders_count_once_with_the_geometric_mean_of_their_confidences() -> None:
    forward = moved()
    found = matches_both_ways(forward, backward(forward))
    assert_moved(found)
    assert len(found.points_a.unique(dim=0)) == len(found.points_a) > 20
    x, y = found.points_a.long().unbind(-1)
    torch.testing.assert_close(found.confidence, forward.descriptor_confidence_i[y, x] * 2**0.5)


def test_without_descriptors_the_nearest_points_in_space_match() -> None:
    forward = moved(descriptors=False)
    found = pair_matches(forward, stride=4)
    assert_moved(found)
    assert len(found.points_a) == HEIGHT * WIDTH // 16
    assert bool((found.points_a % 4 == 2).all())
    both = matches_both_ways(forward, backward(forward))
    assert len(both.points_a) > len(pair_matches(forward).points_a)
    assert_moved(both)
    unsure = replace(forward, confidence_i=torch.ones(HEIGHT, WIDTH))
    assert len(pair_matches(unsure).points_a) == 0


def test_matches_that_a_model_verified_are_taken_as_they_are() -> None:
    own = Matches(torch.rand(7, 2), torch.rand(7, 2), torch.rand(7))
    forward = replace(moved(), matches=own)
    assert pair_matches(forward) is own
    assert matches_both_ways(forward, backward(forward)) is own


def test_chosen_pixels_of_the_second_view_are_found_in_the_first() -> None:
    wanted = torch.tensor([[10.2, 11.9], [20.0, 20.0], [-3.0, 5.0], [47.6, 31.0], [1.0, 9.0]])
    found = matches_of_pixels(moved(), wanted)
    assert found.points_b.tolist() == [[10, 12], [20, 20]]  # the others are outside, or at the border
    assert_moved(found)


def test_matches_outlive_the_descriptors_on_disk(tmp_path) -> None:
    given = moved()
    cache = PairCache.open(tmp_path / "cache", "run")
    cache.put((0, 1), with_matches(given))
    stored = cache[0, 1]
    assert stored.descriptors_i is None
    found, expected = pair_matches(stored), pair_matches(given)
    assert torch.equal(found.points_a, expected.points_a)
    assert torch.equal(found.points_b, expected.points_b)
    assert torch.equal(found.confidence, expected.confidence)
    plain = moved(descriptors=False)
    assert with_matches(plain) is plain


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same() -> None:
    given = moved()
    other = backward(given)
    for here, there in (
        (pair_matches(given), pair_matches(given, device="cuda")),
        (matches_both_ways(given, other), matches_both_ways(given, other, "cuda")),
    ):
        assert torch.equal(here.points_a, there.points_a)
        assert torch.equal(here.points_b, there.points_b)


class Network:
    """Answers (i, j) and (j, i) with one prediction seen both ways round, all pairs of one order first."""

    name, metric, image_rule = "network", False, None

    def __init__(self) -> None:
        self.encoded: list[str] = []
        self.most_waiting = 0

    def encode(self, views: Sequence[View]) -> list[str]:
        self.encoded += [view.name for view in views]
        return [view.name for view in views]

    def decode(
        self, views: Sequence[View], features: Sequence[str], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairPrediction]]:
        self.most_waiting = max(self.most_waiting, len(pairs) // 2)
        for i, j in sorted(pairs, key=lambda pair: pair[0] > pair[1]):
            assert features[i] == views[i].name
            forward = moved(seed=min(i, j))
            yield (i, j), forward if i < j else backward(forward)


@pytest.fixture(scope="module")
def views() -> list[View]:
    return [tiny.view(str(k), HEIGHT, WIDTH) for k in range(9)]


def test_a_network_is_asked_both_ways_round_a_few_pairs_at_a_time(views) -> None:
    model = Network()
    pairs = [(i, j) for i in range(8) for j in range(i + 1, 8)]
    found = dict(predict_matches(model, views, pairs))
    assert sorted(found) == pairs
    assert model.encoded == [str(k) for k in range(8)]  # once each, and not the one that is in no pair
    assert model.most_waiting <= 16
    for (i, _), said in found.items():
        assert not said.verified
        assert said.focals[0] == pytest.approx(FOCAL, rel=1e-3)
        expected = moved(seed=i)
        assert torch.equal(said.matches.points_a, matches_both_ways(expected, backward(expected)).points_a)


def test_a_pair_can_be_asked_in_either_order(views) -> None:
    ((_, there),) = predict_matches(Network(), views, [(0, 1)])
    ((pair, back),) = predict_matches(Network(), views, [(1, 0)])
    assert pair == (1, 0)
    assert_moved(back.matches.swapped())
    assert len(back.matches.points_a) == len(there.matches.points_a)


class TestWithoutDepth:
    """What ``classic`` and its kind do for those who want nothing but matches."""

    @pytest.fixture(scope="class")
    def views(self) -> list[View]:
        images = render_scenes(3, 1, 3, 192, 256, kinds=("room",)).images[0]
        pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
        return [View(str(k), image, torch.eye(3, dtype=torch.float64), (256, 192)) for k, image in enumerate(pixels)]

    def test_the_same_matches_and_focals_as_with_depth(self, views) -> None:
        model = Classic()
        features = model.encode(views)
        full = dict(model.decode(views, features, [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]))
        asked = [(0, 1), (2, 0), (1, 2)]
        said = list(predict_matches(model, views, asked, features))
        assert [pair for pair, _ in said] == asked
        for pair, found in said:
            expected = full[pair].matches
            assert expected is not None
            assert len(expected.points_a) > 50
            assert found.verified
            assert torch.equal(found.matches.points_a, expected.points_a)
            assert torch.equal(found.matches.points_b, expected.points_b)
            x = full[pair].points_i[0, 0]
            assert found.focals[0] == pytest.approx(float((255 / 2) / -x[0] * x[2]), rel=1e-3)

    def test_no_depth_is_swept(self, views, monkeypatch) -> None:
        monkeypatch.setattr("unposed.models.classic.sweep_both", None)
        ((_, found),) = predict_matches(Classic(), views, [(0, 1)])
        assert len(found.matches.points_a) > 50

    def test_a_model_says_that_it_can_by_having_the_method(self) -> None:
        assert isinstance(Classic(), MatchModel)
        assert not isinstance(Network(), MatchModel)
