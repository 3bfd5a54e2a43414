import math

import pytest
import torch

from unposed.align.averaging import average_poses, average_sequence, median_rotation, nearest_point
from unposed.errors import UserError
from unposed.geometry.pose_errors import rotation_error
from unposed.geometry.rotations import matrix_from_axis_angle, matrix_from_quaternion, quaternion_from_matrix
from unposed.geometry.transforms import invert_rigid, rigid


def _stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _noise(count: int, degrees: float, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, generator=_stream(seed), dtype=torch.float64) * math.radians(degrees) / 3**0.5


def _problem(count: int, degrees: float = 0.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """References, relative poses with translations of any length, and the true pose of the query."""
    stream = _stream(seed)

    def cameras(number: int) -> torch.Tensor:
        turns = matrix_from_axis_angle(2 * torch.randn(number, 3, generator=stream, dtype=torch.float64))
        return rigid(turns, 3 * torch.randn(number, 3, generator=stream, dtype=torch.float64))

    world, query = cameras(count), cameras(1)[0]
    exact = invert_rigid(world) @ query
    turned = matrix_from_axis_angle(_noise(count, degrees, seed + 1)) @ exact[:, :3, :3]
    moved = (matrix_from_axis_angle(_noise(count, degrees, seed + 2)) @ exact[:, :3, 3:]).squeeze(-1)
    return world, rigid(turned, moved * (0.2 + torch.rand(count, 1, generator=stream, dtype=torch.float64))), query


def _errors(found: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    return float(rotation_error(found[:3, :3], truth[:3, :3])), float((found[:3, 3] - truth[:3, 3]).norm())


@pytest.mark.parametrize("count", [2, 3, 8])
def test_exact_relative_poses_give_the_exact_pose_whatever_the_lengths(count):
    world, relative, query = _problem(count)
    found = average_poses(world, relative)
    torch.testing.assert_close(found.world_from_camera, query, rtol=0, atol=1e-9)
    assert found.agreeing.all()
    assert found.reliable, found.reason


def test_the_sign_of_a_translation_does_not_matter():
    world, relative, query = _problem(6)
    relative[::2, :3, 3] *= -1
    torch.testing.assert_close(average_poses(world, relative).world_from_camera, query, rtol=0, atol=1e-9)


def test_quaternions_of_both_signs_are_averaged():
    turn = matrix_from_axis_angle(torch.tensor([-math.pi / 2, 0.0, 0.0], dtype=torch.float64))
    for axis in range(3):
        half_turn = matrix_from_axis_angle(math.pi * torch.eye(3, dtype=torch.float64)[axis])
        for exact in (turn, half_turn):
            noisy = matrix_from_axis_angle(_noise(10, 3.0, axis)) @ exact
            assert float(rotation_error(median_rotation(noisy), exact)) < 3
            quaternions = quaternion_from_matrix(noisy) * torch.tensor([1.0, -1.0]).repeat(5)[:, None]
            torch.testing.assert_close(median_rotation(matrix_from_quaternion(quaternions)), median_rotation(noisy))


def test_wrong_references_are_left_out():
    worst = []
    for seed in range(20):
        world, relative, query = _problem(10, 1.0, seed)
        wrong = _problem(10, 0.0, seed + 100)[1]
        relative[:3] = wrong[:3]
        found = average_poses(world, relative)
        assert not found.agreeing[:3].any()
        assert found.agreeing[3:].sum() >= 6
        worst.append(_errors(found.world_from_camera, query))
    assert max(turn for turn, _ in worst) < 1.5
    assert max(shift for _, shift in worst) < 0.5


def test_a_reference_with_the_right_rotation_and_a_wrong_direction_is_left_out():
    world, relative, query = _problem(8, 0.5)
    relative[0, :3, 3] = torch.linalg.cross(relative[0, :3, 3], torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    found = average_poses(world, relative)
    assert found.agreeing.tolist() == [False] + [True] * 7
    assert _errors(found.world_from_camera, query)[1] < 0.2


def test_the_uncertainty_is_about_the_error():
    """Over many problems the error is a few standard errors at most, and not far less than one."""
    ratios = []
    for seed in range(40):
        world, relative, query = _problem(8, 3.0, seed)
        found = average_poses(world, relative)
        ratios.append(_errors(found.world_from_camera, query)[1] / found.centre_uncertainty)
    assert 0.3 < float(torch.tensor(ratios).median()) < 2
    assert max(ratios) < 6


@pytest.mark.parametrize("degrees", [0.0, 0.3])
def test_cameras_in_one_row_leave_the_place_along_it_open(degrees):
    row = torch.tensor([[x, 0.0, 0.0] for x in (-2.0, -1.0, 1.0, 2.0, 3.0)], dtype=torch.float64)
    world = rigid(torch.eye(3, dtype=torch.float64).expand(5, 3, 3), row)
    relative = invert_rigid(world)  # the query stands in the origin
    relative[:, :3, 3] = (matrix_from_axis_angle(_noise(5, degrees, 0)) @ relative[:, :3, 3:]).squeeze(-1)
    found = average_poses(world, relative)
    assert not found.reliable
    assert "in one row" in found.reason
    assert math.isinf(found.centre_uncertainty)
    assert _errors(found.world_from_camera, torch.eye(4, dtype=torch.float64))[0] < 1e-6
    torch.testing.assert_close(
        found.world_from_camera[:3, 3], torch.tensor([0.6, 0, 0], dtype=torch.float64), rtol=0, atol=0.1
    )


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_a_noisy_row_of_cameras_is_not_believed_either(count):
    believed, misplaced = 0, 0
    for seed in range(20):
        row = torch.zeros(count, 3, dtype=torch.float64)
        row[:, 0] = torch.linspace(1, 3, count)
        world = rigid(torch.eye(3, dtype=torch.float64).expand(count, 3, 3), row)
        relative = invert_rigid(world)
        relative[:, :3, 3] = (matrix_from_axis_angle(_noise(count, 2.0, seed)) @ relative[:, :3, 3:]).squeeze(-1)
        found = average_poses(world, relative)
        believed += found.reliable
        misplaced += float(found.world_from_camera[:3, 3].norm()) > 20
    assert believed <= 1
    assert misplaced <= 1


def test_one_reference_or_none_is_not_enough():
    world, relative, query = _problem(1)
    found = average_poses(world, relative)
    assert not found.reliable
    assert "two are needed" in found.reason
    assert _errors(found.world_from_camera, query)[0] < 1e-6
    with pytest.raises(UserError, match="reference"):
        average_poses(world[:0], relative[:0])


def test_a_zero_translation_tells_a_rotation_and_no_line():
    world, relative, query = _problem(5)
    relative[0, :3, 3] = 0
    found = average_poses(world, relative)
    assert found.agreeing.all()
    torch.testing.assert_close(found.world_from_camera, query, rtol=0, atol=1e-9)
    relative[:, :3, 3] = 0
    nowhere = average_poses(world, relative)
    assert nowhere.world_from_camera.isfinite().all()
    assert not nowhere.reliable


def test_poses_that_are_no_numbers_are_left_out():
    world, relative, query = _problem(6)
    relative[2] = float("nan")
    found = average_poses(world, relative)
    assert found.agreeing.tolist() == [True, True, False, True, True, True]
    torch.testing.assert_close(found.world_from_camera, query, rtol=0, atol=1e-9)


def test_photos_of_another_place_are_not_believed():
    doubted = 0
    for seed in range(20):
        world, _, _ = _problem(10, 0.0, seed)
        doubted += not average_poses(world, _problem(10, 0.0, seed + 50)[1]).reliable
    assert doubted == 20


def test_nearest_point_of_lines_in_batches():
    starts = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0.0, 0, 1], [0, 0, -1]]], dtype=torch.float64)
    lines = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[1.0, 0, 0], [0, 1, 0]]], dtype=torch.float64)
    torch.testing.assert_close(nearest_point(starts, lines), torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("use_previous", [True, False])
def test_a_path_through_a_video_up_to_its_length(use_previous):
    world = _problem(6)[0]
    world = invert_rigid(world[0]) @ world
    asked = []

    def relative_pose(i: int, j: int) -> torch.Tensor:
        asked.append((i, j))
        pose = invert_rigid(world[i]) @ world[j]
        return rigid(pose[:3, :3], 5 * pose[:3, 3])

    path = average_sequence(relative_pose, 6, use_previous)
    world[:, :3, 3] /= world[-1, :3, 3].norm()
    torch.testing.assert_close(torch.stack([pose.world_from_camera for pose in path]), world, rtol=0, atol=1e-8)
    assert ((2, 3) in asked) is use_previous
    with pytest.raises(UserError, match="two frames"):
        average_sequence(relative_pose, 1)
