import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.geometry.strategies import normal, poses, rotations, seeds
from unposed.geometry.similarity import fit_camera_similarity, move_camera
from unposed.geometry.transforms import fit_similarity, invert_rigid, rigid, transform_points


@given(poses(), seeds)
def test_inverse_undoes(pose: Tensor, seed: int) -> None:
    points = normal(seed, 7, 3)
    torch.testing.assert_close(transform_points(invert_rigid(pose), transform_points(pose, points)), points)
    torch.testing.assert_close(invert_rigid(pose), torch.linalg.inv(pose), atol=1e-9, rtol=1e-9)


@given(poses(), poses(), seeds)
def test_products_compose(a: Tensor, b: Tensor, seed: int) -> None:
    points = normal(seed, 2, 3, 3)
    torch.testing.assert_close(transform_points(a @ b, points), transform_points(a, transform_points(b, points)))


@given(poses(), poses(), seeds)
def test_batches_move_map_n_by_transform_n(a: Tensor, b: Tensor, seed: int) -> None:
    maps = normal(seed, 2, 4, 5, 3)
    moved = transform_points(torch.stack([a, b]), maps)
    torch.testing.assert_close(moved[0], transform_points(a, maps[0]))
    torch.testing.assert_close(moved[1], transform_points(b, maps[1]))


@given(rotations(), seeds, st.floats(0.01, 100))
def test_similarity_is_recovered_exactly(rotation: Tensor, seed: int, scale: float) -> None:
    source, translation = normal(seed, 2, 20, 3), normal(seed + 1, 3)
    target = scale * source @ rotation.mT + translation
    weights = normal(seed + 2, 2, 20).abs() + 0.1
    s, r, t = fit_similarity(source, target, weights)
    torch.testing.assert_close(s, torch.full_like(s, scale))
    torch.testing.assert_close(r, rotation.expand(2, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(t, translation.expand(2, 3), atol=1e-6 * (1 + scale), rtol=0)


@given(rotations(), seeds)
def test_similarity_ignores_points_of_weight_zero(rotation: Tensor, seed: int) -> None:
    source = normal(seed, 20, 3)
    target = 2 * source @ rotation.mT
    target[:5] += 10
    weights = torch.ones(20, dtype=torch.float64)
    weights[:5] = 0
    s, r, _ = fit_similarity(source, target, weights)
    torch.testing.assert_close(float(s), 2.0)
    torch.testing.assert_close(r, rotation, atol=1e-6, rtol=0)


@given(seeds)
def test_similarity_is_never_a_reflection(seed: int) -> None:
    source = normal(seed, 20, 3)
    _, rotation, _ = fit_similarity(source, source * torch.tensor([1.0, 1.0, -1.0]))
    torch.testing.assert_close(float(torch.linalg.det(rotation)), 1.0)


@given(poses(), seeds, st.floats(0.1, 10), st.integers(2, 5))
def test_camera_similarity_moves_one_set_onto_the_other(world: Tensor, seed: int, scale: float, count: int) -> None:
    source = torch.stack([rigid(torch.linalg.qr(m)[0], m[0]) for m in normal(seed, count, 3, 3)])
    source[:, :3, :3] *= torch.linalg.det(source[:, :3, :3]).sign()[:, None, None]
    similarity = torch.tensor(scale, dtype=torch.float64), world[:3, :3], world[:3, 3]
    target = move_camera(*similarity, source)
    torch.testing.assert_close(torch.linalg.det(target[:, :3, :3]), torch.ones(count, dtype=torch.float64))
    found = move_camera(*fit_camera_similarity(source, target), source)
    # Two cameras on a line hold the turn about it by the hundredth-long axes alone.
    torch.testing.assert_close(found[:, :3, 3], target[:, :3, 3], atol=0.02 * scale, rtol=0.02)


@given(poses(), rotations())
def test_cameras_in_one_place_give_a_rotation(pose: Tensor, turn: Tensor) -> None:
    source = torch.stack([pose, pose])
    source[1, :3, :3] = turn @ source[1, :3, :3]
    scale, rotation, translation = fit_camera_similarity(source, source)
    torch.testing.assert_close(float(scale), 1.0)
    moved = move_camera(scale, rotation, translation, source)
    torch.testing.assert_close(moved[:, :3, 3], source[:, :3, 3], atol=1e-6, rtol=0)
