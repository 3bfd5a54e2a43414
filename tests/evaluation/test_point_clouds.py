import numpy as np
import pytest
import torch

from unposed.evaluation.point_clouds import align_clouds, cloud_errors, estimate_normals
from unposed.geometry.rotations import matrix_from_axis_angle


def _sphere(count: int, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).standard_normal((count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_errors_by_hand() -> None:
    reference = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    predicted = np.array([[0.0, 0.1, 0], [1.0, 0.3, 0]])
    errors = cloud_errors(predicted, reference, threshold=0.2)
    assert errors.accuracy.mean == pytest.approx(0.2)
    assert errors.completion.mean == pytest.approx((0.1 + 0.3 + np.hypot(1, 0.3)) / 3)
    assert errors.completion.median == pytest.approx(0.3)
    assert (errors.precision, errors.recall) == (0.5, pytest.approx(1 / 3))
    assert errors.f_score == pytest.approx(0.4)
    assert errors.chamfer == pytest.approx((errors.accuracy.mean + errors.completion.mean) / 2)
    assert np.isnan(errors.normal_consistency)


def test_normals_of_a_sphere_point_outwards_up_to_sign() -> None:
    points = _sphere(4000)
    normals = estimate_normals(points)
    agreement = np.abs((normals * points).sum(1))
    assert agreement.mean() > 0.999
    errors = cloud_errors(points, _sphere(4000, 1), 0.2, normals, _sphere(4000, 1))
    assert errors.normal_consistency > 0.99
    assert errors.f_score == 1


def test_icp_undoes_a_small_motion_and_ignores_far_points() -> None:
    target = np.random.default_rng(0).uniform(-1, 1, (3000, 3)) * [1, 0.6, 0.3]
    rotation = matrix_from_axis_angle(torch.tensor([0.0, 0.02, 0.01], dtype=torch.float64)).numpy()
    source = np.concatenate([(target - [0.02, -0.01, 0.01]) @ rotation, [[50.0, 0, 0]]])
    target_from_source = align_clouds(source, target, 0.2)
    np.testing.assert_allclose(target_from_source[:3, :3], rotation, atol=1e-6)
    np.testing.assert_allclose(target_from_source[:3, 3], [0.02, -0.01, 0.01], atol=1e-6)


def test_icp_without_correspondences_moves_nothing() -> None:
    np.testing.assert_array_equal(align_clouds(_sphere(20), _sphere(20) + 100, 0.1), np.eye(4))
