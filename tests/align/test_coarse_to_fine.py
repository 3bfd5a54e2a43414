"""Matching photos four times as large as the network's view, whole and crop by crop."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tasks.described import DescribedModel
from tests.tasks.perfect import write_photos
from unposed.align.coarse_to_fine import WholePhoto, refine_by_crops, shrunk
from unposed.align.matching import predict_matches
from unposed.geometry.cameras import map_pixels
from unposed.io.photos import find_photos, make_views
from unposed.io.resize import ImageRule
from unposed.synth import RenderedViews, optical_flow, render_scenes
from unposed.views import Matches, View

SIZE = 192, 256
VIEW = 64


@pytest.fixture(scope="module")
def truth() -> RenderedViews:
    return render_scenes(4, 1, 2, *SIZE, kinds=("room",))


@pytest.fixture
def photos(tmp_path: Path, truth: RenderedViews) -> list[WholePhoto]:
    write_photos(tmp_path / "photos", truth)
    found = find_photos(tmp_path / "photos").photos
    views = make_views(found, ImageRule(VIEW))
    return [WholePhoto(view, photo.load()) for view, photo in zip(views, found, strict=True)]


def matcher(model: DescribedModel):
    return lambda views, pairs: [(pair, found.matches) for pair, found in predict_matches(model, views, pairs)]


def errors(matches: Matches, photos: list[WholePhoto], truth: RenderedViews) -> torch.Tensor:
    """Distance in pixels of the original photo b of each match from where its place in photo a really is."""
    a = map_pixels(photos[0].view.original_from_view, matches.points_a.double())
    b = map_pixels(photos[1].view.original_from_view, matches.points_b.double())
    x, y = a.round().long().unbind(-1)
    return (a + optical_flow(truth, 0, 1)[0][y.clamp(0, SIZE[0] - 1), x.clamp(0, SIZE[1] - 1)] - b).norm(dim=-1)


def test_matches_of_crops_are_three_times_as_precise(photos, truth) -> None:
    match = matcher(DescribedModel(truth, VIEW))
    ((_, coarse),) = match([photo.view for photo in photos], [(0, 1)])
    told: list[tuple[int, int]] = []
    fine = refine_by_crops(coarse, *photos, ImageRule(VIEW), match, lambda done, total: told.append((done, total)))
    before, after = errors(coarse, photos, truth), errors(fine, photos, truth)
    assert len(after) > 2 * len(before)
    assert float(after.median()) < float(before.median()) / 3
    assert float(after.quantile(0.9)) < float(before.quantile(0.9)) / 3
    assert told[-1][0] == told[-1][1] == len(told) > 1


def test_a_crop_knows_its_place_in_the_photo() -> None:
    pixels = torch.arange(120 * 200 * 3, dtype=torch.int32).remainder(251).to(torch.uint8).reshape(120, 200, 3)
    view = View("a", torch.zeros(48, 64, 3, dtype=torch.uint8), torch.eye(3, dtype=torch.float64), (200, 120))
    photo = WholePhoto(view, Image.fromarray(pixels.numpy()))
    crop = photo.crop((37, 21, 37 + 64, 21 + 48), ImageRule(64))
    assert torch.equal(crop.image, pixels[21:69, 37:101])
    place = map_pixels(crop.original_from_view, torch.tensor([[0.0, 0.0], [63.0, 47.0]], dtype=torch.float64))
    assert place.tolist() == [[37, 21], [100, 68]]
    larger = photo.crop((0, 0, 128, 96), ImageRule(64))
    corners = map_pixels(larger.original_from_view, torch.tensor([[-0.5, -0.5], [63.5, 47.5]], dtype=torch.float64))
    assert corners.tolist() == [[-0.5, -0.5], [127.5, 95.5]]


def test_too_few_coarse_matches_stay_as_they_are(photos, truth) -> None:
    few = Matches(torch.rand(5, 2) * 40, torch.rand(5, 2) * 40, torch.ones(5))
    assert refine_by_crops(few, *photos, ImageRule(VIEW), matcher(DescribedModel(truth, VIEW))) is few


def test_only_a_view_smaller_than_its_photo_is_shrunk(photos) -> None:
    whole = View("a", torch.zeros(8, 8, 3, dtype=torch.uint8), torch.eye(3, dtype=torch.float64), (8, 8))
    assert not shrunk(whole)
    assert shrunk(whole, photos[0].view)
