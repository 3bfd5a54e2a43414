import math

import pytest
import torch

from unposed.geometry.cameras import intrinsics_matrix, project
from unposed.geometry.resection import refine_resection, significance
from unposed.geometry.rotations import matrix_from_axis_angle, rotation_angle
from unposed.geometry.transforms import rigid, transform_points

SIZE = (480, 640)
K = intrinsics_matrix(500.0, torch.tensor([319.5, 239.5], dtype=torch.float64))
POSE = rigid(
    matrix_from_axis_angle(torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)),
    torch.tensor([10.0, -4.0, 2.0], dtype=torch.float64),
)


def _observed(count: int, seed: int, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and the world points they show, at depths of 2 to 6."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    pixels = uniform[:, :2] * torch.tensor([639.0, 479.0])
    depth = 2 + 4 * uniform[:, 2:]
    local = torch.cat([(pixels - K[:2, 2]) / 500, torch.ones(count, 1)], -1) * depth
    assert torch.allclose(project(local, K), pixels)
    pixels = pixels + noise * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return pixels, transform_points(POSE, local)


def _near(degrees: float, distance: float) -> torch.Tensor:
    turn = matrix_from_axis_angle(torch.tensor([0, math.radians(degrees), 0], dtype=torch.float64))
    return POSE @ rigid(turn, torch.tensor([distance, 0, 0], dtype=torch.float64))


def _errors(found: torch.Tensor) -> tuple[float, float]:
    turn = math.degrees(float(rotation_angle(found[:3, :3].T @ POSE[:3, :3])))
    return turn, float((found[:3, 3] - POSE[:3, 3]).norm())


def test_exact_points_bring_a_near_pose_home_despite_outliers() -> None:
    pixels, points = _observed(200, seed=1)
    pixels[:60] += 40
    found = refine_resection(pixels, points, K, _near(0.2, 0.01), SIZE, limit=6.0)
    assert found is not None
    assert max(_errors(found.world_from_camera)) < 1e-6
    assert found.inliers.tolist() == [False] * 60 + [True] * 140


def test_the_world_may_be_tiny_or_huge() -> None:
    pixels, points = _observed(100, seed=2, noise=0.5)
    sigmas = []
    for scale in (1e-4, 1.0, 1e4):
        start = _near(0.2, 0.01)
        start[:3, 3] *= scale
        found = refine_resection(pixels, points * scale, K, start, SIZE, limit=6.0)
        assert found is not None
        sigmas.append(found.position_sigma / scale)
    assert sigmas == pytest.approx([sigmas[1]] * 3, rel=1e-6)


def test_sigmas_are_the_spread_of_the_errors() -> None:
    """One point a cell on average: hardly any share one, so the errors are as independent as the sigmas assume."""
    turns, shifts, said = [], [], []
    for seed in range(60):
        pixels, points = _observed(40, seed=seed, noise=1.0)
        found = refine_resection(pixels, points, K, POSE, SIZE, limit=8.0)
        assert found is not None
        turn, shift = _errors(found.world_from_camera)
        turns.append(turn**2)
        shifts.append(shift**2)
        said.append((found.rotation_sigma, found.position_sigma))
    rotation, position = (sum(values) / len(values) for values in zip(*said, strict=True))
    assert rotation == pytest.approx(math.sqrt(sum(turns) / 60), rel=0.3)
    assert position == pytest.approx(math.sqrt(sum(shifts) / 60), rel=0.3)


def test_many_points_in_one_place_promise_no_more_than_one() -> None:
    pixels, points = _observed(40, seed=3, noise=1.0)
    once = refine_resection(pixels, points, K, POSE, SIZE, limit=8.0)
    often = refine_resection(pixels.repeat(50, 1), points.repeat(50, 1), K, POSE, SIZE, limit=8.0)
    assert once is not None
    assert often is not None
    assert often.position_sigma == pytest.approx(once.position_sigma, rel=0.02)


def test_a_free_focal_length_is_found_and_makes_the_position_less_certain() -> None:
    pixels, points = _observed(300, seed=4, noise=0.3)
    start = K.clone()
    start[0, 0] = start[1, 1] = 520
    free = refine_resection(pixels, points, start, POSE, SIZE, limit=20.0, focal_spread=math.inf)
    fixed = refine_resection(pixels, points, K, POSE, SIZE, limit=20.0)
    held = refine_resection(pixels, points, start, POSE, SIZE, limit=20.0, focal_spread=1e-7)
    assert free is not None
    assert fixed is not None
    assert held is not None
    assert float(free.intrinsics[0, 0]) == pytest.approx(500, abs=1)
    assert free.position_sigma > 1.5 * fixed.position_sigma
    assert float(held.intrinsics[0, 0]) == pytest.approx(520, abs=0.1)


def test_points_on_one_ray_place_nothing() -> None:
    points = POSE[:3, 3] + POSE[:3, 2] * torch.linspace(2, 6, 20, dtype=torch.float64)[:, None]
    assert refine_resection(K[:2, 2].expand(20, 2), points, K, POSE, SIZE, limit=6.0) is None
    assert refine_resection(torch.zeros(0, 2), torch.zeros(0, 3), K, POSE, SIZE, limit=6.0) is None


def test_chance_matches_are_not_significant_and_true_ones_are() -> None:
    assert significance(1000, 5, 6.4, SIZE) < 0  # a thousand chance points would give 0.4 inliers, and three are free
    assert significance(1000, 100, 6.4, SIZE) > 50
    assert significance(12, 12, 6.4, SIZE) > 20
    assert significance(3, 3, 6.4, SIZE) == 0
