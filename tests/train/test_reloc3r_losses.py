import math

import pytest
import torch

from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import invert_rigid, rigid
from unposed.train.reloc3r_losses import pose_loss


def _cameras(count: int, seed: int) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    turns, places = (torch.randn(count, 3, generator=stream, dtype=torch.float64) for _ in range(2))
    return rigid(matrix_from_axis_angle(turns), places)


def test_true_poses_of_any_length_cost_next_to_nothing():
    first, second = _cameras(5, 0), _cameras(5, 1)
    pose2 = invert_rigid(first) @ second
    pose1 = invert_rigid(pose2)
    for length in (0.1, 10.0):
        pose2[:, :3, 3] *= length
        assert float(pose_loss(pose1, pose2, first, second).loss) < 0.01  # four clamped angles
    assert float(pose_loss(pose2, pose1, first, second).loss) > 1, "the two directions are told apart"


def test_each_angle_has_its_term():
    first, second = _cameras(5, 0), _cameras(5, 1)
    pose2 = invert_rigid(first) @ second
    axis = torch.nn.functional.normalize(torch.linalg.cross(pose2[:, :3, 3], torch.ones(5, 3).double()), dim=-1)
    turned = rigid(matrix_from_axis_angle(0.3 * axis) @ pose2[:, :3, :3], pose2[:, :3, 3])
    diverted = rigid(pose2[:, :3, :3], (matrix_from_axis_angle(0.2 * axis) @ pose2[:, :3, 3:]).squeeze(-1))
    found = pose_loss(invert_rigid(pose2), turned, first, second)
    assert float(found.rotation2) == pytest.approx(0.3, abs=1e-4)
    assert float(found.direction2) < 0.002
    found = pose_loss(invert_rigid(pose2), diverted, first, second)
    assert float(found.direction2) == pytest.approx(0.2, abs=1e-4)
    assert float(found.loss) == pytest.approx(0.2, abs=0.005)


def test_cameras_in_one_place_cost_a_right_angle_without_gradient():
    first = _cameras(1, 0)
    predicted = torch.eye(4, dtype=torch.float64)[None].clone()
    predicted[0, :3, 3] = 1.0
    predicted.requires_grad_()
    found = pose_loss(predicted, predicted, first, first)
    assert float(found.direction1.detach()) == pytest.approx(math.pi / 2)
    found.loss.backward()
    assert float(predicted.grad[0, :3, 3].abs().max()) == pytest.approx(0, abs=1e-6)


def test_gradient_steps_lead_to_the_true_pose():
    first, second = _cameras(1, 0), _cameras(1, 1)
    numbers = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([numbers], lr=0.05)
    for _ in range(100):
        pose2 = rigid(matrix_from_axis_angle(numbers[:3]), numbers[3:] + 0.1)[None]
        found = pose_loss(invert_rigid(pose2), pose2, first, second)
        optimiser.zero_grad()
        found.loss.backward()
        optimiser.step()
    assert float(found.loss) < 0.2
