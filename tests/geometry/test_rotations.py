import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.geometry.strategies import normal, rotations, seeds
from unposed.geometry.rotations import (
    axis_angle_from_matrix,
    matrix_from_axis_angle,
    matrix_from_quaternion,
    nearest_rotation,
    quaternion_from_matrix,
    rotation_angle,
)

EYE = torch.eye(3, dtype=torch.float64)


def _is_rotation(matrix: Tensor) -> None:
    torch.testing.assert_close(matrix @ matrix.mT, EYE.expand_as(matrix), atol=1e-9, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones_like(matrix[..., 0, 0]), atol=1e-9, rtol=0)


@given(seeds, st.floats(1e-3, 1e3))
def test_any_quaternion_gives_a_rotation(seed: int, length: float) -> None:
    quaternion = normal(seed, 5, 4)
    matrix = matrix_from_quaternion(length * quaternion)
    _is_rotation(matrix)
    torch.testing.assert_close(matrix, matrix_from_quaternion(-quaternion), atol=1e-9, rtol=0)


def test_quaternion_order_and_handedness() -> None:
    quarter = torch.tensor([0.5**0.5, 0, 0, 0.5**0.5])  # wxyz: a quarter turn about z takes x to y
    torch.testing.assert_close(matrix_from_quaternion(quarter) @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))


@given(rotations())
def test_quaternion_and_matrix_are_inverse(rotation: Tensor) -> None:
    quaternion = quaternion_from_matrix(rotation)
    assert quaternion[0] >= 0
    torch.testing.assert_close(quaternion.norm(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(matrix_from_quaternion(quaternion), rotation, atol=1e-7, rtol=0)


@given(rotations())
def test_axis_angle_and_matrix_are_inverse(rotation: Tensor) -> None:
    vector = axis_angle_from_matrix(rotation)
    assert vector.norm() <= torch.pi + 1e-6
    torch.testing.assert_close(matrix_from_axis_angle(vector), rotation, atol=1e-7, rtol=0)


@given(rotations())
def test_angle_is_the_length_of_the_axis_angle(rotation: Tensor) -> None:
    torch.testing.assert_close(rotation_angle(rotation), axis_angle_from_matrix(rotation).norm(), atol=1e-6, rtol=0)


@given(rotations(), rotations())
def test_angle_between_rotations_is_symmetric_and_obeys_the_triangle(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(rotation_angle(a.mT @ b), rotation_angle(b.mT @ a), atol=1e-7, rtol=0)
    assert rotation_angle(a @ b) <= rotation_angle(a) + rotation_angle(b) + 1e-6


@given(seeds)
def test_nearest_rotation_is_nearer_than_its_neighbours(seed: int) -> None:
    matrix = normal(seed, 3, 3)
    nearest = nearest_rotation(matrix)
    _is_rotation(nearest)
    neighbours = matrix_from_axis_angle(0.01 * normal(seed + 1, 20, 3)) @ nearest
    assert ((neighbours - matrix).norm(dim=(1, 2)) >= (nearest - matrix).norm() - 1e-9).all()


@given(rotations())
def test_nearest_rotation_keeps_a_rotation(rotation: Tensor) -> None:
    torch.testing.assert_close(nearest_rotation(2.5 * rotation), rotation, atol=1e-9, rtol=0)


def test_axis_angle_has_a_gradient_at_zero() -> None:
    vector = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(matrix_from_axis_angle, vector)
    generators = torch.tensor([[[0, 0, 0], [0, 0, -1], [0, 1, 0]], [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
                               [[0, -1, 0], [1, 0, 0], [0, 0, 0]]], dtype=torch.float64)  # fmt: skip
    torch.testing.assert_close(jacobian.permute(2, 0, 1), generators)
