"""What users ask of a model with descriptors: of one that is right, and of a network that has learned nothing."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.models.test_mast3r import TINY
from tests.tasks.described import DescribedModel
from tests.tasks.perfect import true_cameras, write_photos
from unposed.errors import UserError
from unposed.geometry.cameras import backproject, project
from unposed.geometry.pose_errors import direction_error, rotation_error
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.io.colmap import write_colmap
from unposed.models.mast3r import Mast3r
from unposed.synth import RenderedViews, optical_flow, render_scenes
from unposed.tasks.localize import localize
from unposed.tasks.match import PhotoMatches, match
from unposed.tasks.pose import relative_pose
from unposed.tasks.reconstruct import reconstruct
from unposed.views import Tracks

HEIGHT, WIDTH = 384, 512
VIEW = 128


@pytest.fixture(scope="module")
def truth() -> RenderedViews:
    return render_scenes(4, 1, 4, HEIGHT, WIDTH, kinds=("room",))


@pytest.fixture
def photos(tmp_path: Path, truth: RenderedViews) -> Path:
    write_photos(tmp_path / "photos", truth)
    return tmp_path / "photos"


@pytest.fixture
def sparse_map(tmp_path: Path, photos: Path, truth: RenderedViews) -> Path:
    """A COLMAP model of the second and third photo, with the points that every 20th pixel of the second shows."""
    (tmp_path / "images").mkdir()
    for k in (1, 2):
        shutil.copy(photos / f"{k}.png", tmp_path / "images")
    cameras = {name: camera for name, camera in true_cameras(truth).items() if name in ("1.png", "2.png")}
    rows, columns = torch.meshgrid(torch.arange(10, HEIGHT, 20), torch.arange(10, WIDTH, 20), indexing="ij")
    y, x = rows.flatten(), columns.flatten()
    pixels = torch.stack([x, y], -1).float()
    local = backproject(pixels, truth.depth[0, 1][y, x], truth.intrinsics[0, 1])
    points = transform_points(truth.world_from_camera[0, 1], local)
    index = torch.arange(len(points))
    there = transform_points(invert_rigid(truth.world_from_camera[0, 2]), points)
    where = project(there, truth.intrinsics[0, 2])
    inside = (where >= 0).all(-1) & (where[:, 0] < WIDTH) & (where[:, 1] < HEIGHT) & (there[:, 2] > 0)
    view = torch.cat([torch.zeros_like(index), torch.ones_like(index[inside])])
    pixel, track = torch.cat([pixels, where[inside]]), torch.cat([index, index[inside]])
    tracks = Tracks(points, torch.zeros(len(points), 3, dtype=torch.uint8), view, pixel, track)
    write_colmap(tmp_path / "sparse", cameras, tracks, text=True)
    return tmp_path / "sparse"


@pytest.fixture(scope="module")
def network() -> Mast3r:
    torch.manual_seed(0)
    return Mast3r(TINY).eval().requires_grad_(False)


def flow_errors(found: PhotoMatches, truth: RenderedViews) -> torch.Tensor:
    x, y = found.points_a.round().long().unbind(-1)
    flow = optical_flow(truth, 0, 1)[0][y.clamp(0, HEIGHT - 1), x.clamp(0, WIDTH - 1)]
    return (found.points_a + flow - found.points_b).norm(dim=-1)


def test_matches_are_right_and_of_crops_three_times_as_precise(photos, truth) -> None:
    found = {
        fine: match(photos / "0.png", photos / "1.png", model=DescribedModel(truth, VIEW), fine=fine)
        for fine in (False, True)
    }
    coarse, fine = (flow_errors(found[which], truth) for which in (False, True))
    assert len(coarse) > 300
    assert float(coarse.median()) < 2.5
    assert len(fine) > 3000
    assert float(fine.median()) < float(coarse.median()) / 3
    assert found[True].verified > 0.9 * found[True].found


def test_a_photo_no_larger_than_its_view_is_not_cut_up(photos, truth) -> None:
    model = DescribedModel(truth, VIEW)
    for name in ("0.png", "1.png"):
        Image.open(photos / name).resize((VIEW, VIEW * HEIGHT // WIDTH)).save(photos / name)
    match(photos / "0.png", photos / "1.png", model=model, fine=True)
    assert model.decoded == [(0, 1), (1, 0)]


def test_a_model_with_matches_of_its_own_needs_no_crops(photos, sparse_map) -> None:
    with pytest.raises(UserError, match="leave --fine out"):
        match(photos / "0.png", photos / "1.png", model="classic", fine=True)
    with pytest.raises(UserError, match="leave --fine out"):
        localize(photos / "0.png", sparse_map, model="classic", fine=True)


def test_the_pose_is_that_of_the_matches_in_metres(photos, truth) -> None:
    pose = relative_pose(photos / "0.png", photos / "1.png", model=DescribedModel(truth, WIDTH // 2))
    b_from_a = (invert_rigid(truth.world_from_camera[0, 1]) @ truth.world_from_camera[0, 0]).double()
    assert pose.method == "essential"
    assert pose.reliable, pose.reason
    assert pose.scale == "metric"
    assert float(rotation_error(pose.b_from_a[:3, :3], b_from_a[:3, :3])) < 0.2
    assert float(direction_error(pose.b_from_a[:3, 3], b_from_a[:3, 3])) < 2
    assert float(pose.b_from_a[:3, 3].norm()) == pytest.approx(float(b_from_a[:3, 3].norm()), rel=0.02)


def _errors(result, truth: RenderedViews) -> tuple[float, float]:
    found, true = result.world_from_camera, truth.world_from_camera[0, 0].double()
    depth = float(truth.depth[0, 0].median())
    return float(rotation_error(found[:3, :3], true[:3, :3])), float((found[:3, 3] - true[:3, 3]).norm()) / depth


def test_a_query_is_placed_among_sparse_points_and_more_exactly_by_crops(photos, sparse_map, truth) -> None:
    coarse, fine = (
        localize(photos / "0.png", sparse_map, model=DescribedModel(truth, VIEW), fine=fine) for fine in (False, True)
    )
    assert coarse.reliable, coarse.reason
    assert fine.reliable, fine.reason
    assert _errors(coarse, truth)[0] < 0.25
    assert _errors(coarse, truth)[1] < 0.004
    assert _errors(fine, truth)[0] < 0.1
    assert _errors(fine, truth)[1] < 0.0015


def test_reconstruction_keeps_the_matches_of_descriptors(photos, truth, monkeypatch) -> None:
    monkeypatch.setattr("unposed.align.matching._by_points", None)  # what is used where descriptors got lost
    scene = reconstruct(photos, model=DescribedModel(truth, 128))
    assert len(scene.views) == 4
    assert scene.metric
    assert scene.tracks is not None
    assert len(scene.tracks.points) > 100


@pytest.mark.parametrize("fine", [False, True])
def test_a_network_that_learned_nothing_matches_without_a_crash(photos, network, fine) -> None:
    found = match(photos / "0.png", photos / "1.png", model=network, fine=fine)
    assert found.found >= len(found.points_a)
    assert found.points_a.shape == found.points_b.shape


@pytest.mark.parametrize("method", ["auto", "essential", "procrustes", "pnp"])
def test_a_network_that_learned_nothing_gives_no_pose_to_believe(photos, network, method) -> None:
    pose = relative_pose(photos / "0.png", photos / "1.png", model=network, method=method)
    assert not pose.reliable
    assert pose.reason


@pytest.mark.parametrize("fine", [False, True])
def test_a_network_that_learned_nothing_places_nothing(photos, sparse_map, network, fine) -> None:
    result = localize(photos / "0.png", sparse_map, model=network, fine=fine)
    assert not result.reliable
    assert result.world_from_camera is None
