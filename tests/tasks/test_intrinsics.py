import json
import math
from importlib.resources import as_file, files

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import unposed
from tests.tasks.perfect import HEIGHT, WIDTH, PerfectModel, rendered, true_cameras, write_photos
from unposed.errors import UserError
from unposed.models.base import FocalEstimate
from unposed.tasks.intrinsics import estimate_intrinsics, intrinsics


@pytest.fixture(scope="module")
def truth():
    return rendered()


@pytest.fixture
def photos(tmp_path, truth):
    write_photos(tmp_path / "photos", truth)
    return tmp_path / "photos"


class Damaged(PerfectModel):
    """Exact pointmaps with a share of wild points, most of them to one side."""

    share = 0.3

    def decode(self, views, features, pairs):
        for pair, prediction in super().decode(views, features, pairs):
            generator = torch.Generator().manual_seed(sum(pair))
            wrong = torch.rand(prediction.confidence_i.shape, generator=generator) < self.share
            wild = torch.randn(prediction.points_i.shape, generator=generator) + torch.tensor([1.0, 0.0, 2.0])
            prediction.points_i[wrong] = wild[wrong]
            yield pair, prediction


class Matcher(PerfectModel):
    """Tells focals by other means than pointmaps."""

    votes = 3

    def estimate_focals(self, views, pairs):
        return [FocalEstimate(view.exif_focal or 50.0, 0.02, self.votes) for view in views]


def off_centre():
    """A photo whose principal point is not the centre."""
    truth = rendered(1)
    truth.intrinsics[0, 0, :2, 2] += torch.tensor([7.0, -5.0])
    return truth, truth.intrinsics[0, 0]


def test_perfect_pointmaps_give_the_focal_of_a_single_photo(photos, truth):
    found = unposed.intrinsics(photos / "1.png", model=PerfectModel(truth))
    assert isinstance(found, unposed.Intrinsics)
    true = true_cameras(truth)["1.png"].intrinsics
    assert found.focal == pytest.approx(float(true[0, 0]), rel=1e-3)
    assert found.principal_point == ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    assert found.method == "pointmap"
    assert found.spread < 1e-3
    assert found.fov_deg[0] == pytest.approx(math.degrees(2 * math.atan(WIDTH / 2 / found.focal)))
    assert found.exif_focal is None
    assert found.exif_disagreement is None


def test_a_free_principal_point_is_found(tmp_path):
    truth, k = off_centre()
    folder = tmp_path / "photos"
    write_photos(folder, truth)
    found = intrinsics(folder / "0.png", model=PerfectModel(truth), principal_point="free")
    assert found.focal == pytest.approx(float(k[0, 0]), rel=1e-3)
    assert found.principal_point == pytest.approx(k[:2, 2].tolist(), abs=0.05)
    fixed = intrinsics(folder / "0.png", model=PerfectModel(truth))
    assert fixed.focal != pytest.approx(float(k[0, 0]), rel=1e-3)
    assert fixed.spread > 10 * found.spread  # the parts of the map tell that the centre is wrong


@pytest.mark.parametrize("principal_point", ["centre", "free"])
def test_three_tenths_of_wild_points_cost_less_than_half_a_percent(photos, truth, principal_point):
    found = intrinsics(photos, model=Damaged(truth), principal_point=principal_point)
    true = true_cameras(truth)["0.png"].intrinsics
    for one in found:
        assert one.focal == pytest.approx(float(true[0, 0]), rel=5e-3)
        assert one.principal_point == pytest.approx(true[:2, 2].tolist(), abs=0.5)


def test_photos_of_one_camera_share_a_focal(photos, truth):
    found = intrinsics(photos, model=PerfectModel(truth))
    assert [one.name for one in found] == ["0.png", "1.png", "2.png", "3.png"]
    assert len({one.focal for one in found}) == 1
    assert {one.votes for one in found} == {12}


def test_photos_of_other_sizes_have_their_own(tmp_path, truth):
    folder = tmp_path / "photos"
    write_photos(folder, truth)
    image = Image.open(folder / "3.png")
    image.resize((WIDTH * 2, HEIGHT * 2)).save(folder / "3.png")
    model = PerfectModel(truth)
    model._cameras["3.png"] = model._cameras["3.png"].through(torch.diag(torch.tensor([2.0, 2, 1])), 256, 192)
    model._depth = lambda view: torch.ones(view.size)
    found = intrinsics(folder, model=model)
    assert found[3].focal == pytest.approx(2 * found[0].focal, rel=0.01)
    assert found[0].focal == found[2].focal


def test_what_matches_say_is_taken_from_models_that_match(photos, truth):
    found = intrinsics(photos, model=Matcher(truth))
    scale = WIDTH / 112
    assert found[0].focal == pytest.approx(50 * scale)
    assert (found[0].method, found[0].spread, found[0].votes) == ("two-view", 0.02, 3)
    with pytest.raises(UserError, match="centre"):
        intrinsics(photos, model=Matcher(truth), principal_point="free")


def test_exif_stands_beside_the_answer(tmp_path, truth):
    folder = tmp_path / "photos"
    write_photos(folder, truth)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1  # Pillow writes none into a PNG whose main directory is empty
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base.FocalLengthIn35mmFilm: 40})
    with Image.open(folder / "0.png") as image:
        image.load()
    image.save(folder / "0.png", exif=exif)
    expected = 40 * math.hypot(WIDTH, HEIGHT) / math.hypot(36, 24)
    found = intrinsics(folder / "0.png", model=PerfectModel(truth))
    assert found.exif_focal == pytest.approx(expected)
    assert found.exif_disagreement == pytest.approx(found.focal / expected - 1)
    assert found.focal == pytest.approx(float(true_cameras(truth)["0.png"].intrinsics[0, 0]), rel=1e-3)
    believed = intrinsics(folder / "0.png", model="classic")
    assert believed.method == "exif"
    assert believed.focal == pytest.approx(expected, rel=1e-3)


def test_a_single_photo_is_a_guess_for_the_offline_models(truth):
    pixels = (truth.images[0, 0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    found = intrinsics(pixels, model="mini")
    assert (found.method, found.votes) == ("prior", 0)
    assert found.spread > 0.3
    assert found.focal == pytest.approx(WIDTH)


def test_matches_of_the_bundled_photos_tell_their_focal():
    with as_file(files("unposed") / "assets" / "demo") as demo:
        found = estimate_intrinsics([demo / f"00{k}.jpg" for k in range(3)], model="classic")
        true = json.loads((demo / "gt.json").read_text())["images"]["000.jpg"]["fx"]
    assert {one.method for one in found} == {"two-view"}
    assert 1 <= found[0].votes <= 3
    assert found[0].focal == pytest.approx(true, rel=0.03)
    assert abs(found[0].focal / true - 1) < 4 * found[0].spread


def test_a_map_that_tells_nothing_is_a_sentence(photos, truth):
    model = PerfectModel(truth)
    model._depth = lambda view: -torch.ones(view.size)
    with pytest.raises(UserError, match=r"0\.png"):
        intrinsics(photos / "0.png", model=model)


def test_an_unknown_choice_is_a_sentence(truth):
    with pytest.raises(UserError, match="centre or free"):
        intrinsics(np.zeros((96, 128, 3), np.uint8), model=PerfectModel(truth), principal_point="left")
