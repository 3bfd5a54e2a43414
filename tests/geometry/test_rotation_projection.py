import pytest
import torch

from unposed.geometry.rotation_projection import rotation_from_6d, rotation_from_9d
from unposed.geometry.rotations import matrix_from_axis_angle, nearest_rotation


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_scaled_rotation_comes_back():
    rotation = matrix_from_axis_angle(_random(20, 3))
    torch.testing.assert_close(rotation_from_9d(3 * rotation.flatten(1)), rotation)
    torch.testing.assert_close(rotation_from_6d(3 * rotation[:, :2].flatten(1)), rotation)


def test_any_numbers_give_the_rotation_nearest_to_their_rows_made_unit():
    numbers = _random(50, 9)
    rows = torch.nn.functional.normalize(numbers.unflatten(-1, (3, 3)), dim=-1)
    torch.testing.assert_close(rotation_from_9d(numbers), nearest_rotation(rows))


@pytest.mark.parametrize("numbers", [torch.zeros(1, 9), -torch.eye(3).reshape(1, 9), torch.ones(1, 9)])
def test_degenerate_numbers_give_a_rotation(numbers):
    rotation = rotation_from_9d(numbers)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3)[None], rtol=0, atol=1e-6)
    assert torch.linalg.det(rotation) > 0


@pytest.mark.parametrize("project", [rotation_from_9d, rotation_from_6d])
def test_gradients_are_those_of_finite_differences(project):
    numbers = _random(4, 9 if project is rotation_from_9d else 6).requires_grad_()
    assert torch.autograd.gradcheck(project, numbers)


def test_gradients_at_an_exact_rotation_are_finite_and_right():
    exact = matrix_from_axis_angle(_random(4, 3)).flatten(1).requires_grad_()
    assert torch.autograd.gradcheck(rotation_from_9d, exact)
    single = torch.eye(3).reshape(1, 9).requires_grad_()
    (rotation_from_9d(single) * _random(3, 3).float()).sum().backward()
    assert single.grad.isfinite().all()
