import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from tests.geometry.strategies import normal, poses, seeds
from unposed.geometry.pose_errors import rotation_error
from unposed.geometry.procrustes import solve_procrustes
from unposed.geometry.transforms import transform_points

SCALE = 1.7


def _points(pose: Tensor, seed: int, count: int = 300) -> tuple[Tensor, Tensor]:
    target = normal(seed, count, 3) + torch.tensor([0.0, 0.0, 5.0])
    return transform_points(torch.linalg.inv(pose), target) / SCALE, target


@pytest.mark.parametrize("max_error", [None, 0.05])
@settings(max_examples=15)
@given(pose=poses(), seed=seeds)
def test_exact_points_give_the_exact_similarity(max_error: float | None, pose: Tensor, seed: int) -> None:
    source, target = _points(pose, seed)
    found = solve_procrustes(source, target, max_error=max_error)
    assert found is not None
    assert found.scale == pytest.approx(SCALE, rel=1e-6)
    moved = found.scale * source @ found.target_from_source[:3, :3].T + found.target_from_source[:3, 3]
    torch.testing.assert_close(moved, target, atol=1e-6, rtol=0)
    assert found.inliers.all()


@settings(max_examples=15)
@given(pose=poses(), seed=seeds)
def test_a_third_of_wrong_points_is_found_out_by_ransac_alone(pose: Tensor, seed: int) -> None:
    source, target = _points(pose, seed)
    target[:100] += 2 * normal(seed + 1, 100, 3)
    target[100:] += 0.005 * normal(seed + 2, 200, 3)
    robust, closed = solve_procrustes(source, target, max_error=0.05), solve_procrustes(source, target)
    assert robust is not None
    assert closed is not None
    truth = torch.linalg.svd(pose[:3, :3])[0] @ torch.linalg.svd(pose[:3, :3])[2]
    assert float(rotation_error(robust.target_from_source[:3, :3], truth)) < 0.5
    assert float(rotation_error(closed.target_from_source[:3, :3], truth)) > 0.5
    assert robust.inliers[100:].float().mean() > 0.98
    assert robust.inliers[:100].float().mean() < 0.2


def test_weights_silence_wrong_points() -> None:
    source, target = _points(torch.eye(4, dtype=torch.float64), 0)
    weights = torch.ones(len(source))
    target[:50], weights[:50] = 9.0, 0.0
    found = solve_procrustes(source, target, weights)
    assert found is not None
    torch.testing.assert_close(found.target_from_source, torch.eye(4, dtype=torch.float64), atol=1e-6, rtol=0)


def test_too_little_gives_none() -> None:
    source, target = _points(torch.eye(4, dtype=torch.float64), 0)
    assert solve_procrustes(source[:2], target[:2]) is None
    assert solve_procrustes(source, target, torch.zeros(len(source))) is None
    assert solve_procrustes(source[:6], normal(5, 6, 3), max_error=1e-9) is None
