import pytest
import torch

from tests.geometry.strategies import normal
from unposed.geometry.cameras import intrinsics_matrix, project
from unposed.geometry.essential import fundamental_inliers, solve_essential
from unposed.geometry.pose_errors import direction_error, rotation_error
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import rigid, transform_points

SIZE = (480, 640)
K_I = intrinsics_matrix(560.0, torch.tensor([310.0, 250.0], dtype=torch.float64))
K_J = intrinsics_matrix(700.0, torch.tensor([325.0, 235.0], dtype=torch.float64))
K_J[1, 1] = 690.0
J_FROM_I = rigid(
    matrix_from_axis_angle(torch.tensor([0.04, -0.3, 0.06], dtype=torch.float64)),
    torch.tensor([0.9, 0.1, 0.2], dtype=torch.float64),
)


def matched(wrong: float = 0.0, count: int = 400):
    """Exact matches of a cloud, a share of which lead elsewhere, and which ones those are."""
    points = normal(0, count, 3) * torch.tensor([1.0, 0.8, 0.8]) + torch.tensor([0.0, 0.0, 5.0])
    pixels_i, pixels_j = project(points, K_I), project(transform_points(J_FROM_I, points), K_J)
    bad = torch.arange(count) < wrong * count
    pixels_j[bad] = torch.rand(int(bad.sum()), 2, dtype=torch.float64) * torch.tensor([640.0, 480.0])
    return pixels_i, pixels_j, bad


@pytest.mark.parametrize(("wrong", "turn", "direction"), [(0.0, 0.01, 0.01), (0.3, 0.05, 0.1)])
def test_the_pose_of_cameras_with_their_own_intrinsics(wrong: float, turn: float, direction: float) -> None:
    torch.manual_seed(0)
    pixels_i, pixels_j, bad = matched(wrong)
    found = solve_essential(pixels_i, pixels_j, K_I, K_J, SIZE)
    assert found is not None
    assert float(rotation_error(found.j_from_i[:3, :3], J_FROM_I[:3, :3])) < turn
    assert float(direction_error(found.j_from_i[:3, 3], J_FROM_I[:3, 3])) < direction
    assert found.inliers[~bad].all()
    assert found.inliers[bad].float().mean() < 0.1 if bad.any() else True
    assert found.reliable


def test_fundamental_inliers_need_no_calibration() -> None:
    torch.manual_seed(0)
    pixels_i, pixels_j, bad = matched(0.3)
    inliers = fundamental_inliers(pixels_i, pixels_j, SIZE)
    assert inliers[~bad].all()
    assert inliers[bad].float().mean() < 0.1


def test_too_few_matches_are_no_geometry() -> None:
    pixels_i, pixels_j, _ = matched(count=12)
    assert solve_essential(pixels_i, pixels_j, K_I, K_J, SIZE) is None
    assert not fundamental_inliers(pixels_i, pixels_j, SIZE).any()


def test_random_matches_are_no_geometry() -> None:
    torch.manual_seed(0)
    small = (48, 64)
    pixels = [torch.rand(40, 2, dtype=torch.float64) * torch.tensor([64.0, 48.0]) for _ in range(2)]
    assert not fundamental_inliers(*pixels, small, max_error=1.5).any()
