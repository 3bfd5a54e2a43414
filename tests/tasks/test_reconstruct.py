from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tasks.perfect import PerfectModel, rendered, true_cameras, write_photos
from unposed.errors import UserError
from unposed.evaluation.photo_sets import score_cameras
from unposed.io.colmap import read_colmap
from unposed.scene import Scene
from unposed.synth import RenderedViews
from unposed.tasks.outputs import summary, write_outputs
from unposed.tasks.reconstruct import Known, reconstruct


@pytest.fixture(scope="module")
def truth() -> RenderedViews:
    return rendered(5)


@pytest.fixture
def photos(tmp_path: Path, truth: RenderedViews) -> Path:
    write_photos(tmp_path / "photos", truth)
    return tmp_path / "photos"


def test_perfect_predictions_give_true_cameras_of_the_original_photos(photos: Path, truth: RenderedViews) -> None:
    scene = reconstruct(photos, model=PerfectModel(truth), bundle=False)
    assert list(scene.cameras) == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    score = score_cameras(scene.cameras, true_cameras(truth))
    assert score["auc@5"] > 0.85
    assert score["focal_error_median"] < 0.02
    assert not scene.unregistered
    assert not scene.others
    camera = scene.cameras["0.png"]
    assert (camera.width, camera.height) == (128, 96)


@pytest.mark.parametrize("seed", [0, 1])
def test_few_photos_zoomed_or_not_stay_exact_through_bundle_adjustment(tmp_path: Path, seed: int) -> None:
    truth = rendered(3, seed)
    write_photos(tmp_path / "photos", truth)
    focals = truth.intrinsics[0, :, 0, 0]
    if seed:
        assert float(focals.max() / focals.min()) > 1.5  # photos of one size, taken at different zooms
    scene = reconstruct(tmp_path / "photos", model=PerfectModel(truth, 128), bundle=True)
    errors = score_cameras(scene.cameras, true_cameras(truth))
    assert errors["registered"] == 3
    assert errors["rotation_median_deg"] < 0.05
    assert errors["translation_median_deg"] < 0.5
    assert errors["focal_error_median"] < 2e-3


def test_networks_go_the_sparse_road_too(tmp_path: Path) -> None:
    truth = rendered(4, 0)
    write_photos(tmp_path / "photos", truth)
    scene = reconstruct(tmp_path / "photos", model=PerfectModel(truth, 128), road="sparse")
    errors = score_cameras(scene.cameras, true_cameras(truth))
    assert errors["registered"] == 4
    assert errors["auc@5"] > 0.98
    assert errors["focal_error_median"] < 5e-3
    depth, exact = scene["0.png"].depth, truth.depth[0, 0]
    known = (depth > 0) & (exact > 0)
    ratio = depth[known] / exact[known]
    assert float((ratio / ratio.median() - 1).abs().median()) < 0.01


def test_photos_that_nothing_connects_are_not_glued_on(photos: Path, truth: RenderedViews) -> None:
    scene = reconstruct(photos, model=PerfectModel(truth, blind=frozenset({"2.png"})), bundle=False)
    assert "2.png" not in scene.cameras
    assert scene.unregistered == ("2.png",)


def test_two_separate_groups_are_two_components(photos: Path, truth: RenderedViews) -> None:
    groups = photos.parent / "pairs.txt"
    groups.write_text("0.png 1.png\n0.png 2.png\n1.png 2.png\n3.png 4.png\n")
    scene = reconstruct(photos, model=PerfectModel(truth), graph=str(groups), bundle=False)
    assert set(scene.cameras) == {"0.png", "1.png", "2.png"}
    assert [set(other.cameras) for other in scene.others] == [{"3.png", "4.png"}]
    out = photos.parent / "out"
    write_outputs(scene, out)
    assert set(Scene.load(out).others[0].cameras) == {"3.png", "4.png"}
    assert (out / "component_2" / "colmap").is_dir()
    assert summary(scene, out)["components"] == [3, 2]


def test_an_interrupted_run_continues_with_the_missing_pairs(photos: Path, truth: RenderedViews) -> None:
    out = photos.parent / "out"
    first = PerfectModel(truth)
    first.stop_after = 7
    with pytest.raises(KeyboardInterrupt):
        reconstruct(photos, model=first, out=out)
    second = PerfectModel(truth)
    scene = reconstruct(photos, model=second, out=out)
    assert len(scene.cameras) == 5
    assert not set(first.decoded[:7]) & set(second.decoded)
    assert len(second.decoded) == 20 - 7


def test_other_photos_do_not_continue_an_earlier_run(photos: Path, truth: RenderedViews) -> None:
    out = photos.parent / "out"
    first = PerfectModel(truth)
    first.stop_after = 7
    with pytest.raises(KeyboardInterrupt):
        reconstruct(photos, model=first, out=out)
    (photos / "4.png").unlink()
    second = PerfectModel(truth)
    reconstruct(photos, model=second, out=out)
    assert len(second.decoded) == 12


def test_known_cameras_stay_as_they_are(photos: Path, truth: RenderedViews) -> None:
    cameras = true_cameras(truth)
    known = Known(
        {name: camera.intrinsics for name, camera in cameras.items()},
        {name: cameras[name].world_from_camera for name in ("0.png", "1.png", "3.png")},
    )
    scene = reconstruct(photos, model=PerfectModel(truth), known=known)
    for name in ("0.png", "1.png", "3.png"):
        assert torch.allclose(scene.cameras[name].world_from_camera, cameras[name].world_from_camera, atol=1e-4)
    for name in cameras:
        assert torch.allclose(scene.cameras[name].intrinsics, cameras[name].intrinsics, atol=1e-2)
    distance = (scene.cameras["4.png"].centre - cameras["4.png"].centre).norm()
    assert distance < 0.05 * (cameras["0.png"].centre - cameras["4.png"].centre).norm() + 0.05


def test_known_cameras_of_strangers_are_refused(photos: Path, truth: RenderedViews) -> None:
    with pytest.raises(UserError, match=r"stranger\.png"):
        reconstruct(photos, model=PerfectModel(truth), known=Known({"stranger.png": torch.eye(3)}, {}))


def test_one_photo_is_a_scene(photos: Path, truth: RenderedViews) -> None:
    scene = reconstruct(photos / "0.png", model=PerfectModel(truth))
    assert list(scene.cameras) == ["0.png"]
    assert torch.allclose(scene.cameras["0.png"].world_from_camera, torch.eye(4), atol=1e-5)


def test_every_output_is_written_and_the_cache_is_gone(photos: Path, truth: RenderedViews) -> None:
    out = photos.parent / "out"
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    scene = reconstruct(photos, model=PerfectModel(truth), out=out)
    write_outputs(scene, out)
    for name in ("scene.json", "maps.safetensors", "scene.ply", "scene.glb", "transforms.json", "preview.png"):
        assert (out / name).stat().st_size > 0
    assert set(read_colmap(out / "colmap").cameras) == set(scene.cameras)
    assert (out / "colmap" / "cameras.txt").is_file()
    assert not (out / "pairs").exists()
    facts = summary(scene, out)
    assert facts["registered"] == 5
    assert facts["skipped"] == 1
    assert set(Scene.load(out).cameras) == set(scene.cameras)


def test_mixed_orientations_share_a_scene(tmp_path: Path, truth: RenderedViews) -> None:
    names = write_photos(tmp_path / "photos", truth)
    path = tmp_path / "photos" / names[1]
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: the reader turns it upright again
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    scene = reconstruct(tmp_path / "photos", model=PerfectModel(truth), bundle=False)
    assert score_cameras(scene.cameras, true_cameras(truth))["auc@5"] > 0.85
