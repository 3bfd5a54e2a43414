import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from tests.geometry.strategies import normal, poses, seeds
from unposed.geometry.cameras import intrinsics_matrix, project
from unposed.geometry.pnp import solve_pnp, solve_pnp_unknown_focal, undistort_pixels
from unposed.geometry.transforms import transform_points

CENTRE = torch.tensor([320.0, 240.0], dtype=torch.float64)


def _problem(pose: Tensor, seed: int, focal: float = 500.0, count: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, world points and K of a camera that sees a cloud in front of it."""
    camera_points = normal(seed, count, 3) * torch.tensor([1.0, 0.8, 0.7]) + torch.tensor([0.0, 0.0, 4.0])
    camera_points[:, 2].clamp_(min=1.0)
    k = intrinsics_matrix(focal, CENTRE)
    return project(camera_points, k), transform_points(pose, camera_points), k


@pytest.mark.parametrize("method", ["poselib", "opencv"])
@settings(max_examples=20)
@given(pose=poses(), seed=seeds)
def test_exact_pixels_give_the_exact_pose(method: str, pose: Tensor, seed: int) -> None:
    pixels, points, k = _problem(pose, seed)
    found = solve_pnp(pixels, points, k, method=method)
    assert found is not None
    torch.testing.assert_close(found.world_from_camera, pose, atol=1e-4, rtol=0)
    assert found.inliers.all()


@pytest.mark.parametrize("method", ["poselib", "opencv"])
@settings(max_examples=20)
@given(pose=poses(), seed=seeds)
def test_wrong_matches_are_found_out(method: str, pose: Tensor, seed: int) -> None:
    pixels, points, k = _problem(pose, seed)
    pixels[:20] += 100 + 50 * normal(seed + 1, 20, 2).abs()
    found = solve_pnp(pixels, points, k, method=method)
    assert found is not None
    torch.testing.assert_close(found.world_from_camera, pose, atol=1e-2, rtol=0)
    assert found.inliers[20:].all()
    assert not found.inliers[:20].any()


@settings(max_examples=10)
@given(poses(), seeds)
def test_unknown_focal_is_found(pose: Tensor, seed: int) -> None:
    pixels, points, _ = _problem(pose, seed, focal=777.0)
    found = solve_pnp_unknown_focal(pixels, points, CENTRE, (480, 640))
    assert found is not None
    assert float(found.intrinsics[0, 0]) == pytest.approx(777.0, rel=0.02)


def test_focal_is_found_though_every_candidate_fits_within_the_threshold() -> None:
    pixels, points, _ = _problem(torch.eye(4, dtype=torch.float64), 0, focal=22.0)
    found = solve_pnp_unknown_focal(pixels, points, CENTRE, (16, 20), reprojection_error=50.0)
    assert found is not None
    assert float(found.intrinsics[0, 0]) == pytest.approx(22.0, rel=0.05)


@pytest.mark.parametrize("method", ["poselib", "opencv"])
def test_too_little_gives_none(method: str) -> None:
    pixels, points, k = _problem(torch.eye(4, dtype=torch.float64), 0)
    assert solve_pnp(pixels[:3], points[:3], k, method=method) is None
    assert solve_pnp_unknown_focal(pixels[:0], points[:0], CENTRE, (480, 640)) is None


def test_the_same_input_gives_the_same_pose() -> None:
    pixels, points, k = _problem(torch.eye(4, dtype=torch.float64), 0)
    pixels += normal(1, *pixels.shape)
    first, second = solve_pnp(pixels, points, k), solve_pnp(pixels, points, k)
    assert first is not None
    assert second is not None
    assert torch.equal(first.world_from_camera, second.world_from_camera)


def test_undistorted_pixels_distort_back() -> None:
    k = intrinsics_matrix(500.0, CENTRE)
    straight = CENTRE + 150 * normal(0, 20, 2)
    k1, k2, p1, p2 = distortion = torch.tensor([0.05, -0.01, 0.001, -0.002], dtype=torch.float64)
    x, y = ((straight - CENTRE) / 500).unbind(1)
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2 * r2
    bent = torch.stack(
        [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], 1
    )
    torch.testing.assert_close(undistort_pixels(500 * bent + CENTRE, k, distortion), straight, atol=0.05, rtol=0)
