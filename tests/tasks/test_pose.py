from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.tasks.perfect import HEIGHT, WIDTH, PerfectModel, rendered, write_photos
from unposed.errors import UserError
from unposed.geometry.cameras import intrinsics_matrix, project
from unposed.geometry.essential import solve_essential
from unposed.geometry.pose_errors import direction_error, rotation_error
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import invert_rigid, rigid, transform_points
from unposed.synth import RenderedViews, covisibility, optical_flow, render_scenes
from unposed.tasks.pose import described, relative_pose, summary
from unposed.tasks.pose_verdict import Evidence, judge
from unposed.views import Matches, Pair, PairPrediction, RelativePose, View

METHODS = ("essential", "procrustes", "pnp")
FOCALS_DIFFER = 31


class Disturbed(PerfectModel):
    """Exact pointmaps in metres of which a share of the pixels tells another place."""

    def __init__(self, truth: RenderedViews, wrong: float = 0.0, metric: bool = False) -> None:
        super().__init__(truth, size=WIDTH)
        self.wrong, self.metric = wrong, metric

    def decode(
        self, views: Sequence[View], features: Sequence, pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairPrediction]]:
        generator = torch.Generator().manual_seed(0)
        for (i, j), exact in super().decode(views, features, pairs):
            maps = []
            for points in (exact.points_i, exact.points_j):
                points = points / (1 + 0.1 * ((3 * i + 5 * j) % 7)) if self.metric else points
                bad = torch.rand(points.shape[:2], generator=generator) < self.wrong
                elsewhere = points.flatten(0, 1)[torch.randperm(points[..., 0].numel(), generator=generator)]
                maps.append(torch.where(bad[..., None], 1.3 * elsewhere.view(points.shape), points))
            yield (i, j), replace(exact, points_i=maps[0], points_j=maps[1])


@pytest.fixture(scope="module")
def truth() -> RenderedViews:
    return rendered(3, FOCALS_DIFFER)


@pytest.fixture
def photos(tmp_path: Path, truth: RenderedViews) -> Path:
    write_photos(tmp_path / "photos", truth)
    return tmp_path / "photos"


def errors(pose: RelativePose, truth: RenderedViews, a: int, b: int) -> tuple[float, float]:
    """Rotation and translation direction in degrees."""
    b_from_a = (invert_rigid(truth.world_from_camera[0, b]) @ truth.world_from_camera[0, a]).double()
    turn = rotation_error(pose.b_from_a[:3, :3], b_from_a[:3, :3])
    return float(turn), float(direction_error(pose.b_from_a[:3, 3], b_from_a[:3, 3]))


@pytest.mark.parametrize(
    ("method", "wrong", "turn", "direction"),
    [
        ("procrustes", 0.0, 0.05, 0.1),
        ("pnp", 0.0, 0.05, 0.1),
        ("essential", 0.0, 0.05, 0.2),
        ("procrustes", 0.3, 0.5, 0.5),
        ("pnp", 0.3, 0.5, 0.5),
        ("essential", 0.3, 0.5, 4.0),
    ],
)
def test_pointmaps_give_the_pose_by_every_method(photos, truth, method, wrong, turn, direction) -> None:
    pose = relative_pose(photos / "0.png", photos / "1.png", model=Disturbed(truth, wrong), method=method)
    found = errors(pose, truth, 0, 1)
    assert found[0] < turn
    assert found[1] < direction
    assert pose.method == method
    assert pose.reliable, pose.reason
    assert pose.scale == "unit"
    assert float(pose.b_from_a[:3, 3].norm()) == pytest.approx(1)


def test_focal_lengths_of_both_photos_from_perfect_pointmaps(photos, truth) -> None:
    pose = relative_pose(photos / "0.png", photos / "1.png", model=Disturbed(truth))
    for k, intrinsics in enumerate((pose.intrinsics_a, pose.intrinsics_b)):
        assert float(intrinsics[0, 0]) == pytest.approx(float(truth.intrinsics[0, k, 0, 0]), rel=1e-3)


@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_essential_from_sub_pixel_matches_of_a_procedural_scene(truth, wrong) -> None:
    seen = covisibility(truth, 0, 1)[0]
    y, x = seen.nonzero(as_tuple=True)
    pixels = torch.stack([x, y], -1).double()
    there = pixels + optical_flow(truth, 0, 1)[0][seen].double()
    bad = torch.rand(len(pixels), generator=torch.Generator().manual_seed(0)) < wrong
    there[bad] = there[torch.randperm(len(there), generator=torch.Generator().manual_seed(1))][bad]
    found = solve_essential(
        pixels, there, truth.intrinsics[0, 0], truth.intrinsics[0, 1], (HEIGHT, WIDTH), max_error=0.3
    )
    b_from_a = (invert_rigid(truth.world_from_camera[0, 1]) @ truth.world_from_camera[0, 0]).double()
    assert float(rotation_error(found.j_from_i[:3, :3], b_from_a[:3, :3])) < (0.5 if wrong else 0.05)
    assert float(direction_error(found.j_from_i[:3, 3], b_from_a[:3, 3])) < (0.5 if wrong else 0.1)


@pytest.mark.parametrize(("method", "tolerance"), [("essential", 0.1), ("procrustes", 0.001), ("pnp", 0.001)])
def test_a_metric_model_gives_metres(photos, truth, method, tolerance) -> None:
    pose = relative_pose(photos / "0.png", photos / "1.png", model=Disturbed(truth, metric=True), method=method)
    b_from_a = invert_rigid(truth.world_from_camera[0, 1]) @ truth.world_from_camera[0, 0]
    assert pose.scale == "metric"
    assert float(pose.b_from_a[:3, 3].norm()) == pytest.approx(float(b_from_a[:3, 3].norm()), rel=tolerance)


def test_a_and_b_swapped_give_the_inverse(photos, truth) -> None:
    model = Disturbed(truth, metric=True)
    there = relative_pose(photos / "0.png", photos / "1.png", model=model, method="pnp")
    back = relative_pose(photos / "1.png", photos / "0.png", model=model, method="pnp")
    torch.testing.assert_close(there.b_from_a @ back.b_from_a, torch.eye(4, dtype=torch.float64), atol=0.01, rtol=0)


def test_known_focals_are_used_and_told_to_the_model(photos, truth) -> None:
    hints = []

    class Listening(Disturbed):
        def encode(self, views: Sequence[View]) -> list:
            hints.extend(view.exif_focal for view in views)
            return super().encode(views)

    pose = relative_pose(photos / "0.png", photos / "1.png", model=Listening(truth), focal_a=150.0, focal_b=100.0)
    assert hints == [150.0, 100.0]
    assert float(pose.intrinsics_a[0, 0]) == pytest.approx(150.0)
    assert float(pose.intrinsics_b[1, 1]) == pytest.approx(100.0)


def test_a_model_that_is_sure_of_nothing_is_not_believed(photos, truth) -> None:
    model = PerfectModel(truth, size=WIDTH, blind=frozenset({"1.png"}))
    pose = relative_pose(photos / "0.png", photos / "1.png", model=model)
    assert not pose.reliable
    assert "matches" in pose.reason
    assert pose.b_from_a.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_contradicts_itself_is_not_believed(photos, truth, method) -> None:
    class TwoMinds(Disturbed):
        def decode(self, views: Sequence[View], features: Sequence, pairs: Sequence[Pair]) -> Iterator:
            turn = matrix_from_axis_angle(torch.tensor([0.0, 0.3, 0.0]))
            for (i, j), exact in super().decode(views, features, pairs):
                yield (i, j), replace(exact, points_j=exact.points_j @ turn.T) if i > j else exact

    pose = relative_pose(photos / "0.png", photos / "1.png", model=TwoMinds(truth), method=method)
    assert not pose.reliable
    assert pose.reason


def _photo(image: torch.Tensor) -> np.ndarray:
    return (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


@pytest.mark.parametrize("method", METHODS)
def test_classic_on_rendered_photos(method) -> None:
    views = render_scenes(3, 1, 2, 240, 320, kinds=("room",))
    focal = [float(k[0, 0]) for k in views.intrinsics[0]]
    a, b = (_photo(image) for image in views.images[0])
    pose = relative_pose(a, b, model="classic", method=method, focal_a=focal[0], focal_b=focal[1])
    turn, direction = errors(pose, views, 0, 1)
    slack = 1 if method == "essential" else 4  # points know the focal length that the model found, not ours
    assert turn < 1 * slack
    assert direction < 3 * slack
    assert pose.reliable, pose.reason
    assert pose.inliers > 100


def test_photos_of_different_scenes_are_not_believed() -> None:
    one, other = (render_scenes(seed, 1, 2, 240, 320, kinds=("room",)) for seed in (3, 4))
    pose = relative_pose(_photo(one.images[0, 0]), _photo(other.images[0, 0]), model="classic")
    assert not pose.reliable
    assert pose.reason


def test_a_camera_that_only_turned_says_so() -> None:
    generator = np.random.default_rng(0)
    scenery = np.repeat(np.repeat(generator.integers(0, 255, (120, 240, 3), dtype=np.uint8), 4, 0), 4, 1)
    focal, c, s = 400.0, np.cos(0.15), np.sin(0.15)
    k = np.array([[focal, 0, 159.5], [0, focal, 119.5], [0, 0, 1]])

    wide = cv2.GaussianBlur(scenery, (5, 5), 0)[100:340, 200:840]
    photo_a = wide[:, 160:480]
    turned = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    shift = np.array([[1, 0, -160.0], [0, 1, 0], [0, 0, 1]])
    photo_b = cv2.warpPerspective(wide, k @ turned @ np.linalg.inv(k) @ shift, (320, 240))
    pose = relative_pose(np.ascontiguousarray(photo_a), photo_b, model="classic", focal_a=focal, focal_b=focal)
    assert not pose.reliable
    assert "only turned" in pose.reason
    assert float(rotation_error(pose.b_from_a[:3, :3], torch.from_numpy(turned))) < 1


def test_guessed_focals_that_leave_the_pose_open_are_named(truth) -> None:
    """A wide pair whose rotation hangs on the focal length is believed only when that is known."""
    generator = torch.Generator().manual_seed(0)
    k = intrinsics_matrix(600.0, torch.tensor([319.5, 239.5], dtype=torch.float64))
    turn = matrix_from_axis_angle(torch.tensor([0.1, 1.2, 0.05], dtype=torch.float64))
    points = torch.rand(300, 3, generator=generator, dtype=torch.float64) - 0.5 + torch.tensor([0.0, 0.0, 3.0])
    b_from_a = rigid(turn, torch.tensor([0.0, 0.0, 3.0]) - turn @ torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64))
    pixels = [project(p, k).float() for p in (points, transform_points(b_from_a, points))]
    matches = Matches(pixels[0], pixels[1], torch.ones(300))
    essential = solve_essential(*pixels, k, k, (480, 640))
    guessed = Evidence(matches, (480, 640), (480, 640), k, k, focal_spread=0.15, max_error=1.0)
    verdict = judge(guessed, b_from_a, essential)
    assert "give the focal lengths" in verdict.reason
    assert not judge(replace(guessed, focal_spread=0.0), b_from_a, essential).reason
    wrong = rigid(turn, torch.tensor([0.3, -1.0, 0.2], dtype=torch.float64))
    assert "contradicts" in judge(guessed, wrong, essential).reason
    assert "unsure of the points" in judge(guessed, None, essential).reason


def test_different_zooms_taken_for_one_are_noticed() -> None:
    """Exact matches of two photos of one focal length, solved as if they had two."""
    generator = torch.Generator().manual_seed(0)
    k = intrinsics_matrix(600.0, torch.tensor([319.5, 239.5], dtype=torch.float64))
    points = torch.rand(300, 3, generator=generator, dtype=torch.float64) * 2 + torch.tensor([-1.0, -1.0, 3.0])
    turn = matrix_from_axis_angle(torch.tensor([0.05, -0.1, 0.03], dtype=torch.float64))
    b_from_a = rigid(turn, torch.tensor([0.4, 0.05, 0.3], dtype=torch.float64))
    pixels = [project(p, k).float() for p in (points, transform_points(b_from_a, points))]
    wrong = intrinsics_matrix(780.0, k[:2, 2])
    evidence = Evidence(Matches(*pixels, torch.ones(300)), (480, 640), (480, 640), k, wrong, 0.15, 1.0)
    essential = solve_essential(*pixels, k, wrong, (480, 640))
    verdict = judge(evidence, essential.j_from_i, essential)
    assert "do not fit" in verdict.reason
    assert "given" in judge(replace(evidence, focal_spread=0.0), essential.j_from_i, essential).reason


def test_a_photo_with_itself_is_not_believed() -> None:
    photo = _photo(render_scenes(3, 1, 1, 240, 320, kinds=("room",)).images[0, 0])
    pose = relative_pose(photo, photo, model="classic")
    assert not pose.reliable


@pytest.mark.parametrize(
    ("options", "word"), [({"method": "magic"}, "magic"), ({"focal_a": -3.0}, "-3"), ({"focal_b": 0.0}, "positive")]
)
def test_bad_choices_are_one_sentence(photos, truth, options, word) -> None:
    with pytest.raises(UserError, match=word):
        relative_pose(photos / "0.png", photos / "1.png", model=Disturbed(truth), **options)


def test_the_summary_has_the_names_of_the_fields(photos, truth) -> None:
    pose = relative_pose(photos / "0.png", photos / "1.png", model=Disturbed(truth))
    facts = summary(pose)
    assert all(hasattr(pose, name) for name in facts)
    torch.testing.assert_close(torch.tensor(facts["b_from_a"], dtype=torch.float64), pose.b_from_a)
    assert described(pose)["reliable"] == "yes"
