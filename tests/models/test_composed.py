from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from unposed.errors import UserError
from unposed.geometry.cameras import backproject, pixel_grid, pointmap_from_depth, project
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import fit_similarity, invert_rigid, transform_points
from unposed.models import sift
from unposed.models.base import PairModel, SweepModel
from unposed.models.composed import Composed, LearnedKeypoints
from unposed.nets.convnet import ConvNet
from unposed.synth import RenderedViews, render_scenes
from unposed.views import PairPrediction, View

HEIGHT, WIDTH = 240, 320


def _view(name: str, image: torch.Tensor, focal: float | None = None) -> View:
    pixels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).contiguous()
    height, width = image.shape[1:]
    return View(name, pixels, torch.eye(3, dtype=torch.float64), (width, height), exif_focal=focal)


@pytest.fixture(scope="module")
def model() -> Composed:
    torch.manual_seed(0)
    return Composed(ConvNet(widths=(8, 8, 8, 8, 8), channels=8))


@pytest.fixture(scope="module")
def scene() -> RenderedViews:
    return render_scenes(2, 1, 3, HEIGHT, WIDTH, kinds=("room",))


@pytest.fixture(scope="module")
def predictions(model: Composed, scene: RenderedViews) -> dict[tuple[int, int], PairPrediction]:
    noise = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    focals = [*scene.intrinsics[0, :, 0, 0].tolist(), float(scene.intrinsics[0, 0, 0, 0])]
    views = [_view(str(k), image, focals[k]) for k, image in enumerate([*scene.images[0], noise])]
    pairs = [(0, 1), (1, 0), (1, 2), (0, 3)]
    return dict(model.decode(views, model.encode(views), pairs))


def test_is_a_pair_model(model: Composed):
    assert isinstance(model, PairModel)
    assert isinstance(model, SweepModel)


def test_predictions_have_the_promised_form(predictions: dict[tuple[int, int], PairPrediction]):
    assert set(predictions) == {(0, 1), (1, 0), (1, 2), (0, 3)}
    for prediction in predictions.values():
        assert prediction.points_i.shape == prediction.points_j.shape == (HEIGHT, WIDTH, 3)
        assert prediction.points_i.isfinite().all()
        assert (prediction.points_i[..., 2] > 0).all()
        assert prediction.confidence_i.min() >= 1
        assert prediction.confidence_j.min() >= 1


def test_geometry_of_a_rendered_room_is_found(predictions: dict[tuple[int, int], PairPrediction], scene: RenderedViews):
    prediction = predictions[0, 1]
    world = scene.world_from_camera[0]
    truth_i = pointmap_from_depth(scene.depth[0, 0], scene.intrinsics[0, 0])
    truth_j = transform_points(
        invert_rigid(world[0]) @ world[1], pointmap_from_depth(scene.depth[0, 1], scene.intrinsics[0, 1])
    )
    sure_i, sure_j = prediction.confidence_i > 3, prediction.confidence_j > 3
    assert sure_i.float().mean() > 0.1
    predicted = torch.cat([prediction.points_i[sure_i], prediction.points_j[sure_j]])
    truth = torch.cat([truth_i[sure_i], truth_j[sure_j]])
    scale, rotation, translation = fit_similarity(predicted, truth)
    error = (scale * predicted @ rotation.T + translation - truth).norm(dim=-1)
    assert error.median() < 0.1 * truth_i[..., 2].median()


def test_both_orders_agree(predictions: dict[tuple[int, int], PairPrediction]):
    one, other = predictions[0, 1], predictions[1, 0]
    scale, rotation, translation = fit_similarity(one.points_i.reshape(-1, 3), other.points_j.reshape(-1, 3))
    assert abs(float(scale) - 1) < 1e-3
    moved = one.points_j.reshape(-1, 3) @ rotation.T + translation
    torch.testing.assert_close(moved, other.points_i.reshape(-1, 3), atol=1e-3, rtol=1e-3)
    assert one.matches is not None
    assert other.matches is not None
    assert torch.equal(one.matches.points_a, other.matches.points_b)
    assert len(one.matches.points_a) >= 15


def test_views_that_share_nothing_are_not_believed(predictions: dict[tuple[int, int], PairPrediction]):
    assert predictions[0, 3].confidence_i.max() < 1.1
    assert predictions[0, 3].confidence_j.max() < 1.1


def test_a_pure_rotation_gets_no_baseline_and_keeps_its_angle(model: Composed, scene: RenderedViews):
    image, intrinsics = scene.images[0, 0], scene.intrinsics[0, 0].clone()
    intrinsics[:2, 2] = torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    turn = matrix_from_axis_angle(torch.tensor([0.02, 0.12, 0.0]))
    pixels = pixel_grid(HEIGHT, WIDTH).reshape(-1, 2)
    rays = backproject(pixels, torch.ones(len(pixels)), intrinsics) @ turn  # a_from_b
    grid = (2 * project(rays, intrinsics) + 1) / torch.tensor([WIDTH, HEIGHT]) - 1
    turned = F.grid_sample(image[None], grid.reshape(1, HEIGHT, WIDTH, 2), padding_mode="reflection")[0]
    views = [_view("a", image), _view("b", turned)]
    _, prediction = next(iter(model.decode(views, model.encode(views), [(0, 1)])))
    assert prediction.confidence_i.max() < 1.1
    assert prediction.points_i[..., 2].std() > 1e-3  # single-view depth, not a plane
    middle = prediction.points_j[HEIGHT // 2, WIDTH // 2]
    assert abs(float(torch.atan2(middle[0], middle[2]))) > 0.05


def test_learned_descriptors_add_matches_and_lose_none(model: Composed, scene: RenderedViews):
    a, b = model.encode([_view("a", scene.images[0, 0]), _view("b", scene.images[0, 1])])
    both, alone = (set(map(tuple, found.tolist())) for found in (model.match(a, b), sift.match(a, b)))
    assert alone < both
    assert isinstance(a, LearnedKeypoints)
    torch.testing.assert_close(a.learned.norm(dim=-1), torch.ones(len(a.points)))


def test_reads_its_own_file_and_refuses_others(tmp_path: Path, scene: RenderedViews):
    network = ConvNet().eval()
    half = {name: t.half().contiguous() if t.is_floating_point() else t for name, t in network.state_dict().items()}
    save_file(half, tmp_path / "own.safetensors", {"system": "composed", "config": "{}"})
    save_file(half, tmp_path / "other.safetensors", {"system": "dust3r", "config": "{}"})
    save_file({"a": torch.zeros(2)}, tmp_path / "broken.safetensors", {"system": "composed", "config": "{}"})
    view = _view("a", scene.images[0, 0])
    (loaded,), (direct,) = (
        Composed.from_file(tmp_path / "own.safetensors").encode([view]),
        Composed(network).encode([view]),
    )
    assert Composed.from_file(tmp_path / "own.safetensors").name == "own"
    assert isinstance(loaded, LearnedKeypoints)
    assert isinstance(direct, LearnedKeypoints)
    torch.testing.assert_close(loaded.log_depth, direct.log_depth, atol=0.02, rtol=0)
    for name in ("other", "broken"):
        with pytest.raises(UserError, match=name):
            Composed.from_file(tmp_path / f"{name}.safetensors")
