import math

import torch

from tests.geometry.strategies import normal
from unposed.geometry.cameras import intrinsics_matrix, project
from unposed.geometry.essential import solve_essential
from unposed.geometry.pose_errors import direction_error, rotation_error
from unposed.geometry.pose_uncertainty import pose_uncertainty
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import rigid, transform_points

K = intrinsics_matrix(600.0, torch.tensor([319.5, 239.5], dtype=torch.float64))
TURN = matrix_from_axis_angle(torch.tensor([0.02, -0.1, 0.03], dtype=torch.float64))


def matched(seed: int, count: int = 100, noise: float = 0.5, baseline: float = 0.5, corner: bool = False):
    pose = rigid(TURN, baseline * torch.tensor([1.0, 0.1, 0.1], dtype=torch.float64))
    pixels = torch.rand(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    pixels = pixels * torch.tensor([640.0, 480.0]) * (0.2 if corner else 1.0)
    depth = 4 + normal(seed + 1, count).abs()
    points = torch.cat([(pixels - K[:2, 2]) / 600, torch.ones(count, 1, dtype=torch.float64)], 1) * depth[:, None]
    seen = [
        project(p, K) + noise * normal(seed + k, count, 2)
        for k, p in ((2, points), (3, transform_points(pose, points)))
    ]
    return seen[0], seen[1], pose


def test_it_is_of_the_size_of_the_errors() -> None:
    turns, directions, told = [], [], []
    for seed in range(0, 200, 10):
        a, b, pose = matched(seed)
        found = solve_essential(a, b, K, K, (480, 640), 3.0)
        assert found is not None
        turns.append(float(rotation_error(found.j_from_i[:3, :3], pose[:3, :3])))
        directions.append(float(direction_error(found.j_from_i[:3, 3], pose[:3, 3])))
        told.append(pose_uncertainty(a, b, K, K, found.j_from_i))
    for k, errors in enumerate((turns, directions)):
        expected = math.sqrt(sum(t[k] ** 2 for t in told) / len(told))
        actual = math.sqrt(sum(e**2 for e in errors) / len(errors))
        assert 0.5 < actual / expected < 2


def test_a_corner_a_short_baseline_or_an_unknown_focal_make_it_larger() -> None:
    usual = pose_uncertainty(*matched(0)[:2], K, K, matched(0)[2])
    for other in (matched(0, corner=True), matched(0, baseline=0.02)):
        told = pose_uncertainty(*other[:2], K, K, other[2])
        assert told[1] > 3 * usual[1]
    loose = pose_uncertainty(*matched(0)[:2], K, K, matched(0)[2], focal_spread=0.2)
    assert loose[0] > usual[0]


def test_it_does_not_vanish_with_many_matches_and_is_bounded() -> None:
    many = pose_uncertainty(*matched(0, count=10000)[:2], K, K, matched(0)[2])
    few = pose_uncertainty(*matched(0, count=300)[:2], K, K, matched(0)[2])
    assert 0.5 < many[0] / few[0] < 2
    a, b, pose = matched(0, count=4)
    assert pose_uncertainty(a, b, K, K, pose) == (180.0, 90.0)
    pose[:3, 3] = 0
    assert pose_uncertainty(*matched(0)[:2], K, K, pose) == (180.0, 90.0)
