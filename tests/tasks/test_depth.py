import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import unposed
from tests.tasks.perfect import HEIGHT, WIDTH, PerfectModel, rendered, true_cameras, write_photos
from unposed.errors import UserError
from unposed.geometry.cameras import pixel_grid
from unposed.geometry.transforms import transform_points
from unposed.io.exr import read_exr
from unposed.tasks.depth import FORMATS, depth, write_depths


@pytest.fixture(scope="module")
def truth():
    return rendered()


@pytest.fixture
def photos(tmp_path, truth):
    write_photos(tmp_path / "photos", truth)
    return tmp_path / "photos"


class Kept:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def update(self, *_):
        pass

    def say(self, line):
        self.lines.append(line)


def errors(result, true, scale=None):
    """Relative errors of known depths after one common scale, and that scale."""
    known = (result.depth > 0) & (true > 0)
    scale = scale or float((true[known] / result.depth[known]).median())
    return (result.depth[known] * scale / true[known] - 1).abs(), scale


def test_one_photo_gives_its_depth_at_its_own_pixels(photos, truth):
    result = unposed.depth(photos / "1.png", model=PerfectModel(truth, size=64))
    assert isinstance(result, unposed.Depth)
    assert result.depth.shape == result.confidence.shape == (HEIGHT, WIDTH)
    assert result.scene is None
    error, _ = errors(result, truth.depth[0, 1])
    assert float(error.median()) < 0.005  # the model saw half the pixels
    camera = true_cameras(truth)["1.png"]
    assert torch.allclose(result.intrinsics, camera.intrinsics, rtol=2e-3, atol=0.3)
    assert not result.metric


def test_pictures_and_arrays_are_photos_too(truth):
    pixels = (truth.images[0, 0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    model = PerfectModel(truth)
    model._cameras = {"photo.png": true_cameras(truth)["0.png"], "photo_0.png": true_cameras(truth)["0.png"]}
    assert torch.equal(depth(pixels, model=model).depth, depth(Image.fromarray(pixels), model=model).depth)
    assert [result.name for result in depth([pixels], model=model)] == ["photo_0.png"]


def test_nothing_is_said_of_pixels_that_the_model_did_not_see(photos, truth):
    model = PerfectModel(truth, size=100)  # 100 x 75, cropped to 96 x 64
    result = unposed.depth(photos / "0.png", model=model)
    top = int(result.seen.view.original_from_view[1, 2]) - 1
    assert top > 4
    assert (result.depth[: top - 1] == 0).all()
    assert (result.confidence[: top - 1] == 0).all()
    assert (result.depth[HEIGHT // 2 - 20 : HEIGHT // 2 + 20, 10:-10] > 0).all()


def test_photos_of_one_place_share_scale_and_frame(photos, truth):
    results = depth(photos, model=PerfectModel(truth))
    assert [result.name for result in results] == ["0.png", "1.png", "2.png", "3.png"]
    assert {result.scene for result in results} == {1}
    assert len({result.range for result in results}) == 1
    _, scale = errors(results[0], truth.depth[0, 0])
    for k, result in enumerate(results):
        error, _ = errors(result, truth.depth[0, k], scale)
        assert float(error.median()) < 0.01
    clouds = [result.points().positions for result in results[:2]]
    gaps = torch.cdist(clouds[0][::50], clouds[1]).amin(-1) * scale
    assert float(gaps.median()) < 0.1  # metres: a pixel or two, so one surface


def test_alone_every_photo_has_a_scale_of_its_own(photos, truth):
    model = PerfectModel(truth)
    results = depth(photos, model=model, alone=True)
    assert model.decoded == [(0, 0)] * 4
    assert {result.scene for result in results} == {None}


def test_a_photo_that_nothing_joins_is_taken_by_itself(photos, truth):
    said = Kept()
    results = depth(photos, model=PerfectModel(truth, blind=frozenset({"2.png"})), report=said)
    assert [result.scene for result in results] == [1, 1, None, 1]
    assert float(errors(results[2], truth.depth[0, 2])[0].median()) < 0.01
    assert any("2.png" in line and "by itself" in line for line in said.lines)


def test_points_leave_out_edges_and_carry_colours(photos, truth):
    result = unposed.depth(photos / "0.png", model=PerfectModel(truth))
    cloud = result.points()
    assert 0.25 < len(cloud.positions) / result.seen.depth.numel() < 1
    camera = result.seen.view_camera
    local = transform_points(camera.camera_from_world, cloud.positions)
    pixel = (local @ camera.intrinsics.T)[:, :2] / local[:, 2:]
    nearest = pixel.round().long()
    assert torch.equal(cloud.colours, result.seen.view.image[nearest[:, 1], nearest[:, 0]])
    assert (pixel - pixel_grid(*result.seen.view.size)[nearest[:, 1], nearest[:, 0]]).abs().max() < 0.01


def test_all_formats_hold_the_same_depth(photos, truth, tmp_path):
    written = write_depths(photos, tmp_path / "out", formats=FORMATS, model=PerfectModel(truth))
    assert list(written.photos) == ["0.png", "1.png", "2.png", "3.png"]
    for name, facts in written.photos.items():
        with np.load(facts["npz"]) as arrays:
            assert arrays["depth"].shape == (HEIGHT, WIDTH)
            assert arrays["depth"].dtype == np.float32
            assert arrays["confidence"].shape == (HEIGHT, WIDTH)
            assert arrays["intrinsics"].shape == (3, 3)
            assert not arrays["metric"]
            values = arrays["depth"]
        assert np.array_equal(read_exr(facts["exr"]).numpy(), values)
        unit = json.loads(Path(facts["png_scale"]).read_text())["unit"]
        assert np.abs(cv2.imread(facts["png"], cv2.IMREAD_UNCHANGED) * unit - values).max() <= unit / 2 + 1e-6
        assert cv2.imread(facts["colour"]).shape == (HEIGHT, WIDTH, 3)
        assert Path(facts["ply"]).read_bytes().startswith(b"ply")
        assert facts["scene"] == 1, name
    listed = json.loads((tmp_path / "out" / "run.json").read_text())
    assert listed["photos"] == written.photos
    assert listed["solved_together"] == 4


def test_photos_of_one_stem_do_not_overwrite_each_other(tmp_path, truth):
    write_photos(tmp_path / "photos", truth)
    (tmp_path / "photos" / "sub").mkdir()
    for old, new in (("0.png", "a.png"), ("1.png", "a.webp"), ("2.png", "sub/a.png"), ("3.png", "sub/b.png")):
        (tmp_path / "photos" / old).rename(tmp_path / "photos" / new)
    model = PerfectModel(truth)
    cameras = list(true_cameras(truth).values())
    model._cameras = dict(zip(["a.png", "a.webp", "sub/a.png", "sub/b.png"], cameras, strict=True))
    sources = [tmp_path / "photos", tmp_path / "photos" / "sub"]
    written = write_depths(sources, tmp_path / "out", model=model, alone=True)
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.npz"))
    assert files == ["a.png.npz", "a.webp.npz", "sub/a.npz", "sub/b.npz"]
    assert len(written.photos) == 4


def test_results_are_no_photos_of_a_later_run(photos, truth, tmp_path):
    write_depths(photos, photos / "below" / "depth", model=PerfectModel(truth), alone=True)
    for photo in photos.glob("*.png"):
        (photos / "left").mkdir(exist_ok=True)
        photo.rename(photos / "left" / photo.name)
    found = unposed.tasks.inputs.as_photos(photos).photos
    assert [photo.name for photo in found] == [f"left/{k}.png" for k in range(4)]


def test_the_folder_of_the_photos_is_refused(photos, truth):
    with pytest.raises(UserError, match="another folder"):
        write_depths(photos, photos, model=PerfectModel(truth))


def test_an_unknown_format_is_refused(photos, truth, tmp_path):
    with pytest.raises(UserError, match="tiff"):
        write_depths(photos, tmp_path / "out", formats=["tiff"], model=PerfectModel(truth))


@pytest.mark.parametrize("alone", [True, False])
def test_a_model_that_knows_no_single_photo_says_so(tmp_path, truth, alone):
    grey = np.full((96, 128, 3), 90, np.uint8)
    source = grey if alone else [grey, grey + 40]
    with pytest.raises(UserError, match=r"single photo.*mini"):
        depth(source, model="classic", alone=alone)


def test_auto_knows_single_photos(truth):
    pixels = (truth.images[0, 0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    result = depth(pixels)
    assert result.depth.shape == (HEIGHT, WIDTH)
    assert float(result.depth.max()) > float(result.depth[result.depth > 0].min())


class Sweeping(PerfectModel):
    """Knows cameras and matches, but not depth: that is for the sweep to find."""

    def expected_depth(self, view):
        return torch.zeros(1, 1)


def test_models_that_sweep_get_depth_from_all_views_at_once(photos, truth):
    results = depth(photos, model=Sweeping(truth))
    medians = []
    for k, result in enumerate(results):
        assert float(result.confidence[result.depth > 0].min()) == 1
        sure = (result.confidence > 2) & (truth.depth[0, k] > 0)
        assert float(sure.float().mean()) > 0.2
        ratio = (result.depth / truth.depth[0, k])[sure]
        medians.append(float(ratio.median()))
        assert float((ratio / ratio.median() - 1).abs().median()) < 0.08  # views of 112 pixels
        assert len(result.confidence.unique()) > 10  # the sweep's own; the model's is 1 or 6
    assert max(medians) < 1.01 * min(medians)  # one scale
