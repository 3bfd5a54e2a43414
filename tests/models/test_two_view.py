import math

import numpy as np
import pytest
import torch

from unposed.geometry.essential import TwoView
from unposed.geometry.rotations import matrix_from_axis_angle, rotation_angle
from unposed.models.two_view import consensus_focal, estimate_two_view

SIZE = (480, 640)
FOCAL = 600.0


def scene(seed, *, flat=False, baseline=1.0, turn=0.2, noise=0.3, wrong=0.3, count=300, focal=FOCAL):
    """Matched pixels of points 4 to 8 away, with noise and a share of wrong matches; and the true j_from_i."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(4, 8, count)
    x, y = rng.uniform(-0.45, 0.45, count), rng.uniform(-0.35, 0.35, count)
    points = np.stack([x * z, y * z, z], 1)
    if flat:
        points[:, 2] = 6 + 0.4 * points[:, 0]
    rotation = matrix_from_axis_angle(torch.tensor([0.05, turn, -0.03], dtype=torch.float64)).numpy()
    translation = -rotation @ (np.array([1.0, 0.1, 0.2]) * baseline)
    moved = points @ rotation.T + translation
    centre = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])
    a, b = (p[:, :2] / p[:, 2:] * focal + centre + rng.normal(0, noise, (count, 2)) for p in (points, moved))
    bad = rng.uniform(size=count) < wrong
    b[bad] = rng.uniform((0, 0), (SIZE[1], SIZE[0]), (bad.sum(), 2))
    j_from_i = torch.eye(4, dtype=torch.float64)
    j_from_i[:3, :3], j_from_i[:3, 3] = torch.from_numpy(rotation), torch.from_numpy(translation)
    return torch.from_numpy(a).float(), torch.from_numpy(b).float(), j_from_i, torch.from_numpy(points), ~bad


def errors(found: TwoView, truth):
    """Rotation and translation direction errors in degrees."""
    turn = rotation_angle(found.j_from_i[:3, :3] @ truth[:3, :3].T)
    cosine = torch.nn.functional.cosine_similarity(found.j_from_i[:3, 3], truth[:3, 3], dim=0)
    return math.degrees(turn), math.degrees(math.acos(min(float(cosine), 1.0)))


@pytest.mark.parametrize("seed", range(3))
def test_pose_points_and_inliers_of_a_noisy_pair(seed):
    a, b, truth, points, good = scene(seed)
    found = estimate_two_view(a, b, SIZE, SIZE, FOCAL, FOCAL)
    turn, direction = errors(found, truth)
    assert turn < 0.5
    assert direction < 2
    assert found.j_from_i[:3, 3].norm() == pytest.approx(1)
    assert (found.inliers.numpy() & good).sum() > 0.8 * good.sum()
    assert (found.inliers.numpy() & ~good).sum() < 0.1 * (~good).sum()
    kept = torch.from_numpy(good)[found.inliers]
    expected = points[found.inliers] / truth[:3, 3].norm()
    relative = (found.points - expected)[kept].norm(dim=-1) / expected[kept].norm(dim=-1)
    assert relative.median() < 0.03
    assert found.reliable


def test_angles_are_those_between_the_rays():
    a, b, truth, points, _ = scene(0, noise=0, wrong=0)
    found = estimate_two_view(a, b, SIZE, SIZE, FOCAL, FOCAL)
    centre = -truth[:3, :3].T @ truth[:3, 3]
    to_i, to_j = points[found.inliers], points[found.inliers] - centre
    cosine = torch.nn.functional.cosine_similarity(to_i, to_j, dim=-1)
    torch.testing.assert_close(found.angles, cosine.acos(), atol=1e-3, rtol=0)


def test_random_matches_are_no_geometry():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.rand(80, 2, generator=rng) * torch.tensor([640.0, 480.0]) for _ in range(2))
    found = estimate_two_view(a, b, SIZE, SIZE, FOCAL, FOCAL)
    assert found is None or not found.reliable


def test_too_few_matches_are_no_geometry():
    a, b, *_ = scene(0, count=10)
    assert estimate_two_view(a, b, SIZE, SIZE, FOCAL, FOCAL) is None


def test_a_turning_camera_is_told():
    a, b, truth, *_ = scene(1, baseline=0.0)
    found = estimate_two_view(a, b, SIZE, SIZE, FOCAL, FOCAL)
    assert found.rotation_only
    assert not found.reliable
    assert errors(found, truth)[0] < 1


def test_a_plane_gives_the_pose_or_says_that_two_are_possible():
    for seed in range(3):
        a, b, truth, *_ = scene(seed, flat=True)
        found = estimate_two_view(a, b, SIZE, SIZE, FOCAL, FOCAL)
        turn, direction = errors(found, truth)
        assert found.ambiguous or (turn < 1 and direction < 5)


@pytest.mark.parametrize("focal", [400.0, 650.0, 1200.0])
def test_one_focal_for_a_collection(focal):
    pairs = [scene(seed, turn=turn, focal=focal)[:2] for seed, turn in enumerate((0.2, -0.15, 0.3, 0.1))]
    found = consensus_focal(pairs, [(SIZE, SIZE)] * 4, [(640, 640)] * 4)
    assert found.share * 640 == pytest.approx(focal, rel=0.04)
    assert 0.001 < found.spread < 0.04
    assert 1 <= found.votes <= 4


def test_without_evidence_the_prior_decides():
    found = consensus_focal([], [], [], prior=0.8, prior_spread=0.3)
    assert (found.share, found.spread, found.votes) == (0.8, 0.3, 0)


def test_unknown_focals_are_found_for_a_single_pair():
    a, b, truth, *_ = scene(4, turn=0.3, noise=0.2)
    found = estimate_two_view(a, b, SIZE, SIZE)
    assert found.focal_i == pytest.approx(FOCAL, rel=0.1)
    assert errors(found, truth)[0] < 2
