from collections.abc import Iterator, Mapping

import pytest
import torch

from benchmarks.synthetic_pairs import Noise, SyntheticScene, make_scene, predict_all
from unposed.align.dense import Alignment, align
from unposed.align.objective import Objective, PairData, minimise_with_adam
from unposed.align.sampling import principal_point
from unposed.align.spanning_tree import parameters_from_tree, start_from_tree
from unposed.errors import UserError
from unposed.geometry.cameras import pixel_grid
from unposed.geometry.pnp import solve_pnp
from unposed.geometry.rotations import matrix_from_axis_angle, rotation_angle
from unposed.geometry.similarity import fit_camera_similarity, move_camera
from unposed.geometry.transforms import invert_rigid, rigid, transform_points
from unposed.views import Pair, PairPrediction, View

PERFECT = Noise(0, 0, 0, 0, 0)
SIZES = [(36, 64)] * 3 + [(64, 36), (48, 48)]


def _errors(scene: SyntheticScene, found: Alignment) -> tuple[float, float, float, float]:
    """Worst rotation (degrees), centre (units of the scene, 4 deep), relative focal and median relative depth error."""
    rows = torch.tensor(found.indices)
    truth = scene.world_from_camera[rows]
    scale, rotation, translation = fit_camera_similarity(found.world_from_camera, truth)
    moved = move_camera(scale, rotation, translation, found.world_from_camera)
    depth = [(scale * d / scene.depth[i] - 1).abs().median() for d, i in zip(found.depth, found.indices, strict=True)]
    return (
        float(rotation_angle(moved[:, :3, :3].mT @ truth[:, :3, :3]).max().rad2deg()),
        float((moved[:, :3, 3] - truth[:, :3, 3]).norm(dim=-1).max()),
        float((found.intrinsics[:, 0, 0] / scene.intrinsics[rows, 0, 0] - 1).abs().max()),
        float(torch.stack(depth).max()),
    )


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_scene(SIZES)


@pytest.fixture(scope="module")
def perfect(scene: SyntheticScene) -> dict[Pair, PairPrediction]:
    return predict_all(scene, PERFECT)


@pytest.fixture(scope="module")
def noisy(scene: SyntheticScene) -> dict[Pair, PairPrediction]:
    return predict_all(scene, Noise())


def test_perfect_predictions_give_the_perfect_scene(scene: SyntheticScene, perfect: dict) -> None:
    (found,) = align(scene.views, perfect)
    assert found.indices == list(range(5))
    assert max(_errors(scene, found)) < 1e-3
    assert found.objective < 1e-4
    assert [tuple(d.shape) for d in found.depth] == SIZES
    torch.testing.assert_close(found.world_from_camera[0], torch.eye(4), atol=1e-5, rtol=0)


def test_noisy_predictions_give_better_poses_than_the_pairs(scene: SyntheticScene, noisy: dict) -> None:
    (found,) = align(scene.views, noisy)
    single, aligned = [], []
    for (i, j), prediction in noisy.items():
        truth = invert_rigid(scene.world_from_camera[i]) @ scene.world_from_camera[j]
        pixels = pixel_grid(*scene.views[j].size).reshape(-1, 2)
        pair = solve_pnp(pixels, prediction.points_j.reshape(-1, 3), scene.intrinsics[j], 1.0)
        assert pair is not None
        ours = invert_rigid(found.world_from_camera[i]) @ found.world_from_camera[j]
        single.append(rotation_angle(pair.world_from_camera[:3, :3].T @ truth[:3, :3]))
        aligned.append(rotation_angle(ours[:3, :3].T @ truth[:3, :3]))
    assert torch.stack(aligned).mean() < 0.8 * torch.stack(single).mean()
    assert _errors(scene, found)[3] < 0.03


def test_objective_is_not_above_that_of_the_published_recipe() -> None:
    scene = make_scene([(24, 40)] * 4, seed=3)
    pairs = predict_all(scene, Noise(), seed=3)
    (found,) = align(scene.views, pairs)
    data = PairData.stack(
        torch.tensor(list(pairs)),
        [one.points_i.reshape(-1, 3) for one in pairs.values()],
        [one.points_j.reshape(-1, 3) for one in pairs.values()],
        [one.confidence_i.flatten() for one in pairs.values()],
        [one.confidence_j.flatten() for one in pairs.values()],
        [view.size for view in scene.views],
    )
    centres = scene.intrinsics[:, :2, 2].contiguous()
    parameters = parameters_from_tree(data, start_from_tree(data, centres), centres)
    objective = Objective(data)
    *_, published = minimise_with_adam(objective, parameters, 300)
    assert found.objective <= published * 1.0005


def test_wrong_pairs_do_not_spoil_the_scene() -> None:
    scene = make_scene([(36, 64)] * 6, seed=1)
    pairs = predict_all(scene, Noise(), seed=1)
    clean = _errors(scene, align(scene.views, pairs)[0])
    generator = torch.Generator().manual_seed(0)
    for i, j in ((0, 3), (1, 4), (2, 5)):
        for pair in ((i, j), (j, i)):
            turn = matrix_from_axis_angle(torch.randn(3, generator=generator))
            wrong = rigid(turn, 2 * torch.randn(3, generator=generator))
            old = pairs[pair]
            moved = transform_points(wrong, old.points_j)
            pairs[pair] = PairPrediction(old.points_i, moved, 2 * old.confidence_i, 2 * old.confidence_j)
    (found,) = align(scene.views, pairs)
    assert len(found.indices) == 6
    assert all(error < 2 * before + 0.01 for error, before in zip(_errors(scene, found), clean, strict=True))


def test_known_intrinsics_and_poses_are_kept_exactly(scene: SyntheticScene, noisy: dict) -> None:
    k = scene.intrinsics[3].clone()
    k[1, 1] *= 1.01
    for poses in ({2: scene.world_from_camera[2]}, {v: scene.world_from_camera[v] for v in (0, 2, 4)}):
        (found,) = align(scene.views, noisy, known_intrinsics={3: k}, known_poses=poses)
        assert torch.equal(found.intrinsics[3], k)
        assert all(torch.equal(found.world_from_camera[v], pose) for v, pose in poses.items())
    assert (found.world_from_camera[:, :3, 3] - scene.world_from_camera[:, :3, 3]).norm(dim=-1).max() < 0.15
    assert all((d / t - 1).abs().median() < 0.05 for d, t in zip(found.depth, scene.depth, strict=True))


def test_shared_focal_is_shared(scene: SyntheticScene, noisy: dict) -> None:
    (found,) = align(scene.views, noisy, shared_focal=True, known_intrinsics={1: scene.intrinsics[1]})
    focals = found.intrinsics[[0, 2, 3, 4], 0, 0]
    torch.testing.assert_close(focals, focals[:1].expand(4))
    assert found.intrinsics[1, 0, 0] == scene.intrinsics[1, 0, 0]


def test_unconnected_photos_give_components_largest_first(scene: SyntheticScene, perfect: dict) -> None:
    def failed(one: PairPrediction) -> PairPrediction:
        low = torch.ones_like(one.confidence_i), torch.ones_like(one.confidence_j)
        return PairPrediction(torch.randn_like(one.points_i), torch.randn_like(one.points_j), *low)

    groups = [{1, 2, 4}, {0, 3}]
    pairs = {pair: one if any(set(pair) <= g for g in groups) else failed(one) for pair, one in perfect.items()}
    first, second = align(scene.views, pairs)
    assert (first.indices, second.indices) == ([1, 2, 4], [0, 3])
    assert max(_errors(scene, first)[:3]) < 1e-3
    only = {pair: one for pair, one in pairs.items() if 0 not in pair or 3 not in pair}
    found = align(scene.views, only)
    assert [a.indices for a in found] == [[1, 2, 4], [0], [3]]
    assert found[1].objective == 0
    assert found[1].depth[0].shape == SIZES[0]


def test_two_views_in_closed_form_keep_the_units_of_the_pair(scene: SyntheticScene, perfect: dict) -> None:
    for pairs in ([(0, 1), (1, 0)], [(0, 1)], [(1, 0)]):
        (found,) = align(scene.views[:2], {pair: perfect[pair] for pair in pairs})
        assert _errors(scene, found)[0] < 0.5
        assert _errors(scene, found)[3] < 0.01
        torch.testing.assert_close(found.world_from_camera[0], torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.depth[1], perfect[1, 0].points_i[..., 2], rtol=1e-3, atol=1e-3)


def test_views_that_are_never_first_get_their_focal_from_their_pixels(scene: SyntheticScene, perfect: dict) -> None:
    (found,) = align(scene.views, {(2, j): perfect[2, j] for j in (0, 1, 3, 4)})
    assert _errors(scene, found)[2] < 0.02
    assert _errors(scene, found)[3] < 0.02


def test_predictions_are_read_one_at_a_time_and_nan_is_harmless(scene: SyntheticScene, perfect: dict) -> None:
    class HalfPrecision(Mapping[Pair, PairPrediction]):
        def __getitem__(self, pair: Pair) -> PairPrediction:
            one = perfect[pair]
            points = one.points_i.half()
            points[:2] = torch.nan
            return PairPrediction(points, one.points_j.half(), one.confidence_i.half(), one.confidence_j.half())

        def __iter__(self) -> Iterator[Pair]:
            return iter(perfect)

        def __len__(self) -> int:
            return len(perfect)

    steps: list[str] = []
    (found,) = align(
        scene.views, HalfPrecision(), progress=lambda what, done, total: steps.append(f"{what} {done}/{total}")
    )
    assert max(_errors(scene, found)) < 0.05
    assert all(bool(d.isfinite().all()) and bool((d > 0).all()) for d in found.depth)
    assert "reading pairs 20/20" in steps
    assert "solving depth 5/5" in steps


def test_one_photo_paired_with_itself(scene: SyntheticScene, perfect: dict) -> None:
    (found,) = align(scene.views[:1], {(0, 0): perfect[0, 1]})
    torch.testing.assert_close(found.depth[0], perfect[0, 1].points_i[..., 2])
    assert _errors_of_focal(scene, found) < 1e-3
    assert align(scene.views[:1], {}) == []


def _errors_of_focal(scene: SyntheticScene, found: Alignment) -> float:
    return float((found.intrinsics[0, 0, 0] / scene.intrinsics[0, 0, 0] - 1).abs())


def test_a_pair_of_no_view_is_refused(scene: SyntheticScene, perfect: dict) -> None:
    with pytest.raises(UserError, match="names a view that does not exist"):
        align(scene.views[:3], perfect)


def test_principal_point_follows_the_crop() -> None:
    shift = torch.tensor([[2.0, 0, 30], [0, 2.0, 10], [0, 0, 1]], dtype=torch.float64)
    view = View("a", torch.zeros(8, 8, 3, dtype=torch.uint8), shift, (101, 61))
    torch.testing.assert_close(principal_point(view), torch.tensor([10.0, 10.0]))
