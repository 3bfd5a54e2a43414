from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
import torch

from benchmarks.synthetic_pairs import Noise, SyntheticScene, make_scene, predict, true_matches
from tests.align.test_dense import _errors
from unposed.align.sparse import sparse_align
from unposed.align.tracks import triangulated_tracks
from unposed.errors import UserError
from unposed.geometry.cameras import pointmap_from_depth
from unposed.geometry.rotations import matrix_from_axis_angle, rotation_angle
from unposed.geometry.transforms import invert_rigid, rigid, transform_points
from unposed.views import Camera, Matches, Pair, PairPrediction

PERFECT = Noise(0, 0, 0, 0, 0)
SIZES = [(96, 128)] * 4 + [(128, 96)]


def _predictions(scene: SyntheticScene, noise: Noise = PERFECT, pixels: float = 0.0) -> dict[Pair, PairPrediction]:
    """All ordered pairs, each in a unit of its own, with verified matches."""
    found: dict[Pair, PairPrediction] = {}
    for i in range(len(scene.views)):
        for j in range(i + 1, len(scene.views)):
            matches = true_matches(scene, (i, j), pixels)
            found[i, j] = replace(predict(scene, (i, j), noise), matches=matches)
            swapped = Matches(matches.points_b, matches.points_a, matches.confidence)
            found[j, i] = replace(predict(scene, (j, i), noise), matches=swapped)
    return found


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_scene(SIZES)


@pytest.fixture(scope="module")
def perfect(scene: SyntheticScene) -> dict[Pair, PairPrediction]:
    return _predictions(scene)


def test_perfect_predictions_in_different_units_give_the_perfect_scene(scene: SyntheticScene, perfect: dict) -> None:
    (found,) = sparse_align(scene.views, perfect)
    rotation, centre, focal, depth = _errors(scene, found)
    assert rotation < 0.05
    assert focal < 1e-3
    assert centre < 4e-3
    assert depth < 5e-3
    assert found.indices == list(range(5))
    assert found.objective < 0.1
    assert [tuple(d.shape) for d in found.depth] == SIZES
    assert all(bool((d > 0).all()) and bool((c >= 1).all()) for d, c in zip(found.depth, found.confidence, strict=True))
    torch.testing.assert_close(found.world_from_camera[0], torch.eye(4), atol=1e-5, rtol=0)


def test_noisy_predictions_give_a_scene_near_the_truth(scene: SyntheticScene) -> None:
    (found,) = sparse_align(scene.views, _predictions(scene, Noise(), pixels=0.3))
    rotation, centre, focal, depth = _errors(scene, found)
    assert rotation < 1
    assert centre < 0.15
    assert focal < 0.03
    assert depth < 0.04


def test_a_unit_of_length_is_in_the_mean_that_of_the_predictions(scene: SyntheticScene, perfect: dict) -> None:
    (found,) = sparse_align(scene.views, perfect)
    larger = {pair: replace(one, points_i=3 * one.points_i, points_j=3 * one.points_j) for pair, one in perfect.items()}
    (again,) = sparse_align(scene.views, larger)
    ratio = again.world_from_camera[1:, :3, 3].norm(dim=1) / found.world_from_camera[1:, :3, 3].norm(dim=1)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 3.0), rtol=5e-3, atol=0)


def test_known_intrinsics_and_poses_are_kept_and_set_frame_and_scale(scene: SyntheticScene, perfect: dict) -> None:
    world = rigid(matrix_from_axis_angle(torch.tensor([0.2, -0.4, 0.1])), torch.tensor([5.0, 1, -2]))
    truth = world @ scene.world_from_camera
    intrinsics = {k: scene.intrinsics[k] for k in (0, 3)}
    (found,) = sparse_align(
        scene.views, perfect, known_poses={k: truth[k] for k in (1, 4)}, known_intrinsics=intrinsics
    )
    assert torch.equal(found.world_from_camera[[1, 4]], truth[[1, 4]])
    assert torch.equal(found.intrinsics[[0, 3]], scene.intrinsics[[0, 3]])
    assert float((found.world_from_camera[:, :3, 3] - truth[:, :3, 3]).norm(dim=-1).max()) < 0.01
    (one,) = sparse_align(scene.views, perfect, known_poses={2: truth[2]})
    assert torch.equal(one.world_from_camera[2], truth[2])


def test_a_shared_focal_is_one_focal() -> None:
    scene = make_scene([(96, 128)] * 4)
    intrinsics = scene.intrinsics.clone()
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = 110.0
    scene = scene.seen_by(scene.world_from_camera, intrinsics)
    (found,) = sparse_align(scene.views, _predictions(scene, Noise(), pixels=0.2), shared_focal=True)
    assert len(found.intrinsics[:, 0, 0].unique()) == 1
    assert float(found.intrinsics[0, 0, 0]) == pytest.approx(110, rel=0.02)


def test_principal_points_move_only_when_they_may(scene: SyntheticScene, perfect: dict) -> None:
    (fixed,) = sparse_align(scene.views, perfect)
    (free,) = sparse_align(scene.views, _predictions(scene, pixels=0.3), free_principal_point=True)
    assert torch.equal(fixed.intrinsics[:, :2, 2], scene.intrinsics[:, :2, 2])
    assert (free.intrinsics[:, :2, 2] - scene.intrinsics[:, :2, 2]).abs().amax(1).min() > 0


def test_components_and_views_without_matches_stand_apart(scene: SyntheticScene, perfect: dict) -> None:
    together = {pair: one for pair, one in perfect.items() if set(pair) <= {0, 1, 2} or set(pair) == {3, 4}}
    blind = replace(perfect[3, 4], matches=Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0)))
    together |= {(3, 4): blind, (4, 3): replace(perfect[4, 3], matches=blind.matches)}
    found = sparse_align(scene.views, together)
    assert [one.indices for one in found] == [[0, 1, 2], [3], [4]]
    assert all(one.depth[0].shape == scene.views[one.indices[0]].size for one in found)
    assert set(found[0].matches) == {(0, 1), (0, 2), (1, 2)}


def test_a_pair_that_contradicts_the_others_is_dropped(scene: SyntheticScene, perfect: dict) -> None:
    order = torch.randperm(len(perfect[0, 4].matches.confidence), generator=torch.Generator().manual_seed(0))
    wrong = replace(perfect[0, 4].matches, points_b=perfect[0, 4].matches.points_b[order])
    swapped = Matches(wrong.points_b, wrong.points_a, wrong.confidence)
    changed = {(0, 4): replace(perfect[0, 4], matches=wrong), (4, 0): replace(perfect[4, 0], matches=swapped)}
    (found,) = sparse_align(scene.views, perfect | changed)
    assert (0, 4) not in found.matches
    assert _errors(scene, found)[0] < 0.05


def test_views_from_one_place_keep_the_depth_of_their_pointmaps() -> None:
    scene = make_scene([(96, 128)] * 2)
    turned = scene.world_from_camera[0] @ rigid(matrix_from_axis_angle(torch.tensor([0, 0.15, 0])), torch.zeros(3))
    scene = scene.seen_by(torch.stack([scene.world_from_camera[0], turned]), scene.intrinsics)
    (found,) = sparse_align(scene.views, _predictions(scene, pixels=0.3))
    depth = found.depth[0] / scene.depth[0]
    assert (depth / depth.median() - 1).abs().quantile(0.9) < 0.5  # 2.5 if matches alone decided
    relative = invert_rigid(found.world_from_camera[0]) @ found.world_from_camera[1]
    truth = invert_rigid(scene.world_from_camera[0]) @ scene.world_from_camera[1]
    assert rotation_angle(relative[:3, :3].T @ truth[:3, :3]).rad2deg() < 0.3


def test_the_matches_make_tracks_with_the_cameras(scene: SyntheticScene, perfect: dict) -> None:
    (found,) = sparse_align(scene.views, perfect)
    cameras = [
        Camera(k, pose, view.size[1], view.size[0])
        for k, pose, view in zip(found.intrinsics, found.world_from_camera, scene.views, strict=True)
    ]
    tracks = triangulated_tracks(found.matches, scene.views, cameras, max_error=1.0)
    assert len(tracks.points) > 500


def _described(scene: SyntheticScene, one: PairPrediction, pair: Pair) -> PairPrediction:
    """The prediction without matches, with descriptors that tell where in the world a pixel's point is."""
    waves = 4 * torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    descriptors = []
    for view in pair:
        pose, depth = scene.world_from_camera[view], scene.depth[view]
        phase = transform_points(pose, pointmap_from_depth(depth, scene.intrinsics[view])) @ waves
        descriptors.append(torch.nn.functional.normalize(torch.cat([phase.cos(), phase.sin()], -1), dim=-1))
    sure = [torch.full(scene.views[view].size, 2.0) for view in pair]
    return replace(
        one,
        matches=None,
        descriptors_i=descriptors[0],
        descriptors_j=descriptors[1],
        descriptor_confidence_i=sure[0],
        descriptor_confidence_j=sure[1],
    )


@pytest.mark.parametrize("described", [True, False])
def test_matches_are_found_by_descriptors_or_by_points(described: bool) -> None:
    scene = make_scene([(64, 96)] * 3)
    predictions = {
        pair: _described(scene, one, pair) if described else replace(one, matches=None)
        for pair, one in _predictions(scene).items()
    }
    (found,) = sparse_align(scene.views, predictions)
    rotation, centre, focal, _ = _errors(scene, found)
    assert rotation < 0.2
    assert centre < 0.05
    assert focal < 0.02
    assert min(len(matches.confidence) for matches in found.matches.values()) > 50


def test_matches_of_both_orders_are_joined_and_counted_once(scene: SyntheticScene, perfect: dict) -> None:
    everything = perfect[0, 1].matches
    half = Matches(everything.points_b[::2], everything.points_a[::2], everything.confidence[::2])
    rest = Matches(everything.points_a[5:], everything.points_b[5:], everything.confidence[5:])
    pair = {(0, 1): replace(perfect[0, 1], matches=rest), (1, 0): replace(perfect[1, 0], matches=half)}
    (found,) = sparse_align(scene.views[:2], pair)
    assert len(found.matches[0, 1].confidence) == len(everything.confidence) - 2  # 1 and 3 are in neither


class _Counting(Mapping[Pair, PairPrediction]):
    def __init__(self, predictions: dict[Pair, PairPrediction]) -> None:
        self.predictions, self.reads = predictions, 0

    def __getitem__(self, pair: Pair) -> PairPrediction:
        self.reads += 1
        return self.predictions[pair]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.predictions)

    def __len__(self) -> int:
        return len(self.predictions)

    def __contains__(self, pair: object) -> bool:
        return pair in self.predictions


def test_every_prediction_is_read_once_and_progress_goes_forward(scene: SyntheticScene, perfect: dict) -> None:
    counting, seen = _Counting(perfect), []
    sparse_align(scene.views, counting, progress=lambda what, done, total: seen.append((what, done / total)))
    assert counting.reads == len(perfect)
    for what in {what for what, _ in seen}:
        shares = [share for name, share in seen if name == what]
        assert shares == sorted(shares)
        assert shares[-1] == 1


def test_what_the_user_can_mend_is_said(scene: SyntheticScene, perfect: dict) -> None:
    with pytest.raises(UserError, match="does not exist"):
        sparse_align(scene.views[:3], perfect)
    with pytest.raises(UserError, match="both orders"):
        sparse_align(scene.views, {pair: one for pair, one in perfect.items() if pair[0] < pair[1]})


def test_without_predictions_there_is_nothing(scene: SyntheticScene) -> None:
    assert sparse_align(scene.views, {}) == []
