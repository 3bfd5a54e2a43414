from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from tests.tasks.perfect import HEIGHT, WIDTH, PerfectModel, rendered, true_cameras, write_photos
from unposed.errors import UserError
from unposed.evaluation.photo_sets import score_cameras
from unposed.geometry.cameras import intrinsics_matrix
from unposed.geometry.transforms import rigid
from unposed.io.colmap import pycolmap
from unposed.io.hloc import features_path
from unposed.synth import RenderedViews, optical_flow, render_scenes
from unposed.tasks.match import match, match_photos, summary
from unposed.views import Camera, Matches


@pytest.fixture(scope="module")
def truth() -> RenderedViews:
    return rendered(3)


@pytest.fixture
def photos(tmp_path: Path, truth: RenderedViews) -> Path:
    write_photos(tmp_path / "photos", truth)
    return tmp_path / "photos"


def flow_errors(points_a, points_b, truth: RenderedViews, a: int, b: int) -> torch.Tensor:
    """Distance in pixels of each match from where the surface at its pixel of photo a really is in photo b."""
    flow = optical_flow(truth, a, b)[0]
    pixel = points_a.round().long()
    exact = points_a + flow[pixel[:, 1].clamp(0, HEIGHT - 1), pixel[:, 0].clamp(0, WIDTH - 1)]
    return (exact - points_b).norm(dim=-1)


def test_nearest_points_in_3d_are_pixels_of_the_original_photos(photos, truth) -> None:
    found = match(photos / "0.png", photos / "1.png", model=PerfectModel(truth, size=112))
    errors = flow_errors(found.points_a, found.points_b, truth, 0, 1)
    assert len(errors) > 50
    assert float(errors.median()) < 1.0
    assert float(errors.quantile(0.9)) < 2.0
    assert found.names == ("0.png", "1.png")
    assert found.sizes == ((WIDTH, HEIGHT), (WIDTH, HEIGHT))
    assert found.verified == len(found.points_a) == len(found.confidence)


@pytest.mark.parametrize("verify", ["fundamental", "essential"])
def test_verification_throws_out_what_is_wrong(photos, truth, verify, monkeypatch) -> None:
    exact = match(photos / "0.png", photos / "1.png", model=PerfectModel(truth, size=WIDTH), verify="none")
    assert exact.verified is None
    scrambled = exact.points_b.clone()
    scrambled[::3] = scrambled[::3].flip(0)
    pairs = Matches(exact.points_a, scrambled, exact.confidence)  # a view is the photo at this size
    monkeypatch.setattr("unposed.align.matching.matches_both_ways", lambda forward, backward, device: pairs)
    kept = match(photos / "0.png", photos / "1.png", model=PerfectModel(truth, size=WIDTH), verify=verify)
    assert kept.found == len(exact.points_a)
    assert kept.verified < 0.8 * kept.found
    assert kept.verified > 0.5 * kept.found
    assert float(flow_errors(kept.points_a, kept.points_b, truth, 0, 1).quantile(0.9)) < 2


def test_a_models_own_matches_on_arrays() -> None:
    views = render_scenes(3, 1, 2, 240, 320, kinds=("room",))
    a, b = ((image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy() for image in views.images[0])
    found = match(a, b, model="classic")
    flow = optical_flow(views, 0, 1)[0]
    pixel = found.points_a.round().long()
    errors = (found.points_a + flow[pixel[:, 1], pixel[:, 0]] - found.points_b).norm(dim=-1)
    assert len(errors) > 200
    assert float(errors.median()) < 0.5
    assert (found.points_a != found.points_a.round()).any()
    assert found.verified == found.found


def test_npz_and_picture(photos, truth, tmp_path) -> None:
    found = match(photos / "0.png", photos / "1.png", model=PerfectModel(truth))
    found.save(tmp_path / "m.npz")
    found.save_picture(tmp_path / "m.png")
    with np.load(tmp_path / "m.npz") as file:
        np.testing.assert_array_equal(file["points_a"], found.points_a.numpy())
        np.testing.assert_array_equal(file["points_b"], found.points_b.numpy())
        assert file["confidence"].shape == (len(found.points_a),)
        assert file["names"].tolist() == ["0.png", "1.png"]
    picture = np.asarray(Image.open(tmp_path / "m.png"))
    assert picture.shape[0] == 420
    assert picture.shape[1] == 2 * 560 + 8
    with pytest.raises(UserError, match="suffix"):
        found.save(tmp_path / "m.txt")
    with pytest.raises(UserError, match="png"):
        found.save_picture(tmp_path / "m.npz")


def test_no_match_at_all_is_an_answer(photos, truth, tmp_path) -> None:
    found = match(photos / "0.png", photos / "1.png", model=PerfectModel(truth, blind=frozenset({"1.png"})))
    assert found.points_a.shape == (0, 2)
    assert found.verified == 0
    found.save(tmp_path / "m.npz")
    assert found.picture().shape[-1] == 3


def test_hloc_files_hold_the_same_matches(photos, truth, tmp_path) -> None:
    (photos / "far").mkdir()
    (photos / "2.png").rename(photos / "far" / "2.png")
    source = [photos / "0.png", photos / "1.png", photos / "far"]
    model = PerfectModel(truth)
    model._cameras["far/2.png"] = model._cameras.pop("2.png")
    found = match_photos(source, model=model)
    assert found.save(tmp_path / "m.h5") == [tmp_path / "m.h5", tmp_path / "m-features.h5"]
    assert features_path(tmp_path / "m.h5") == tmp_path / "m-features.h5"
    with h5py.File(tmp_path / "m-features.h5") as features, h5py.File(tmp_path / "m.h5") as matches:
        assert features["far/2.png/image_size"][:].tolist() == [WIDTH, HEIGHT]
        for name_a, name_b, a, b in (("0.png", "1.png", 0, 1), ("1.png", "far/2.png", 1, 2)):
            pair = matches[f"{name_a}/{name_b.replace('/', '-')}"]
            index, scores = pair["matches0"][:], pair["matching_scores0"][:]
            keypoints_a, keypoints_b = (torch.from_numpy(features[n]["keypoints"][:]) for n in (name_a, name_b))
            assert index.shape == scores.shape == (len(keypoints_a),)
            assert ((index >= 0) == (scores > 0)).all()
            used = index[index >= 0]
            assert len(used) == len(found.matches[a, b]) > 20
            assert len(set(used.tolist())) == len(used)
            there = torch.from_numpy(used).long()
            errors = flow_errors(keypoints_a[torch.from_numpy(index >= 0)], keypoints_b[there], truth, a, b)
            assert float(errors.median()) < 1


def test_a_place_that_two_pairs_use_is_one_keypoint(photos, truth) -> None:
    found = match_photos(photos, model=PerfectModel(truth))
    for pixels in found.keypoints:
        assert len(torch.unique(pixels, dim=0)) == len(pixels)
    shared = set(found.matches[0, 1][:, 0].tolist()) & set(found.matches[0, 2][:, 0].tolist())
    assert len(shared) > 10


def _cameras(model: pycolmap.Reconstruction) -> dict[str, Camera]:
    """Cameras by photo name, their slight lens distortion left out."""
    cameras = {}
    for image in model.images.values():
        focal, x, y, _ = model.camera(image.camera_id).params
        pose = torch.from_numpy(np.array(image.cam_from_world().inverse().matrix())).float()
        intrinsics = intrinsics_matrix(focal, torch.tensor([x - 0.5, y - 0.5]))
        cameras[image.name] = Camera(intrinsics.float(), rigid(pose[:, :3], pose[:, 3]), WIDTH, HEIGHT)
    return cameras


def test_colmap_maps_a_scene_from_the_database(tmp_path) -> None:
    truth = rendered(5, seed=19)
    write_photos(tmp_path / "photos", truth)
    found = match_photos(tmp_path / "photos", model=PerfectModel(truth, size=WIDTH))
    assert found.save(tmp_path / "database.db") == [tmp_path / "database.db"]
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1
    (tmp_path / "sparse").mkdir()
    models = pycolmap.incremental_mapping(tmp_path / "database.db", tmp_path / "photos", tmp_path / "sparse", options)
    assert models[0].num_reg_images() == 5
    assert models[0].compute_mean_reprojection_error() < 1
    score = score_cameras(_cameras(models[0]), true_cameras(truth))
    assert score["auc@5"] > 0.5


def test_unverified_matches_are_left_for_colmap_to_verify(photos, truth, tmp_path) -> None:
    found = match_photos(photos, model=PerfectModel(truth), verify="none")
    found.save(tmp_path / "raw.db")
    database = pycolmap.Database.open(tmp_path / "raw.db")
    assert database.num_images() == 3
    assert database.num_cameras() == 1
    assert database.num_matches() == sum(len(index) for index in found.matches.values())
    assert database.num_verified_image_pairs() == 0
    pixels = database.read_keypoints(1)[:, :2]
    np.testing.assert_allclose(pixels, found.keypoints[0].numpy() + 0.5)
    assert database.read_camera(1).params[1:3].tolist() == [WIDTH / 2, HEIGHT / 2]
    database.close()


def test_summary_tells_what_was_done(photos, truth) -> None:
    collection = match_photos(photos, model=PerfectModel(truth), graph="swin-1")
    facts = summary(collection, [Path("m.h5")])
    assert facts["photos"] == 3
    assert facts["pairs"] == facts["pairs_with_matches"] == 3
    assert facts["matches"] == facts["verified"] > 0
    assert facts["written"] == ["m.h5"]


def test_bad_choices_are_one_sentence(photos, truth, tmp_path) -> None:
    model = PerfectModel(truth)
    with pytest.raises(UserError, match="magic"):
        match(photos / "0.png", photos / "1.png", model=model, verify="magic")
    with pytest.raises(UserError, match="only one"):
        match_photos(photos / "0.png", model=model)
    with pytest.raises(UserError, match="webbed"):
        match_photos(photos, model=model, graph="webbed")
    with pytest.raises(UserError, match=r"\.h5"):
        match_photos(photos, model=model).save(tmp_path / "m.csv")
