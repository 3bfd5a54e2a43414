import numpy as np
import pytest
import torch

from unposed.evaluation.relative_pose import mean_accuracy, pairwise_errors, share_below, translation_error
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import rigid


def _poses(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    turns = matrix_from_axis_angle(torch.randn(count, 3, generator=generator, dtype=torch.float64))
    return rigid(turns, torch.randn(count, 3, generator=generator, dtype=torch.float64))


def test_another_world_frame_and_scale_change_nothing() -> None:
    truth = _poses(5)
    moved = _poses(1) @ truth
    moved[:, :3, 3] *= 3
    rotation, translation = pairwise_errors(moved, truth)
    assert len(rotation) == 10
    assert rotation.max() < 1e-6
    assert translation.max() < 1e-5


def test_pairs_are_lexicographic_and_feel_a_turned_camera() -> None:
    truth = _poses(4)
    found = truth.clone()
    found[3, :3, :3] = truth[3, :3, :3] @ matrix_from_axis_angle(
        torch.tensor([0, 0, torch.pi / 9], dtype=torch.float64)
    )
    rotation, _ = pairwise_errors(found, truth)
    assert rotation.tolist() == pytest.approx([0, 0, 20, 0, 20, 20], abs=1e-5)  # 01 02 03 12 13 23


def test_variants_of_the_translation_angle() -> None:
    ahead, back, nothing = torch.tensor([0, 0, 1.0]), torch.tensor([0, 0.1, -1.0]), torch.zeros(3)
    variants = ("unfolded", "folded", "pose-diffusion")
    assert [translation_error(ahead, back, v).item() for v in variants] == pytest.approx([174.29, 5.71, 5.71], abs=0.01)
    assert [translation_error(nothing, ahead, v).item() for v in variants] == [180, 180, 90]


def test_mean_accuracy_is_a_mean_of_recalls_not_the_trapezoid_area() -> None:
    rotation, translation = np.array([0.5, 2.5, 99.0]), np.array([0.1, 0.2, 0.0])
    # recalls at 1, 2, 3, 4 degrees: 1/3, 1/3, 2/3, 2/3
    assert mean_accuracy(rotation, translation, 4) == pytest.approx(0.5)
    assert mean_accuracy(np.array([4.0]), np.array([0.0]), 4) == 0.25  # the last bin is closed
    assert mean_accuracy(np.array([0.9]), np.array([0.0]), 4, "histc") == pytest.approx(0.8)  # 0.9 is in the second bin


def test_shares_are_strictly_below() -> None:
    assert share_below(np.array([14.9, 15.0, np.inf]), 15) == pytest.approx(1 / 3)
