import math

import numpy as np
import pytest
import torch

from unposed.evaluation.pose import direction_error, pose_auc, pose_error, rotation_error
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import rigid


def test_rotation_error_is_the_angle_even_when_tiny():
    base = matrix_from_axis_angle(torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64))
    for degrees in (0.0, 1e-3, 30.0, 179.9):
        turned = base @ matrix_from_axis_angle(torch.tensor([0.0, math.radians(degrees), 0.0], dtype=torch.float64))
        assert rotation_error(turned, base).item() == pytest.approx(degrees, abs=1e-6)


def test_direction_error_ignores_length_and_folds_on_request():
    a, b = torch.tensor([0.0, 0.0, 2.0]), torch.tensor([0.0, -1e-3, -1.0])
    assert direction_error(a, 5 * a).item() == 0
    assert direction_error(a, b).item() == pytest.approx(180 - 0.0573, abs=1e-3)
    assert direction_error(a, b, folded=True).item() == pytest.approx(0.0573, abs=1e-3)
    assert direction_error(a, torch.zeros(3)).item() == 180


def test_pose_error_is_the_larger_of_both():
    rotation = matrix_from_axis_angle(torch.tensor([0.0, 0.0, math.radians(10)]))
    truth = rigid(torch.eye(3), torch.tensor([1.0, 0.0, 0.0]))
    assert pose_error(rigid(rotation, torch.tensor([1.0, 0.0, 0.0])), truth).item() == pytest.approx(10, abs=1e-3)
    assert pose_error(rigid(rotation, torch.tensor([0.0, 1.0, 0.0])), truth).item() == pytest.approx(90, abs=1e-3)


def test_auc_by_hand():
    assert pose_auc([0.0, 0.0], [5])[0] == pytest.approx(1.0)
    assert pose_auc([math.inf, 180.0], [5, 10]) == [0.0, 0.0]
    # recall rises 0 -> 1/2 at 2 degrees, stays until 4
    assert pose_auc([2.0, 10.0], [4])[0] == pytest.approx((0.5 * 2 * 0.5 + 2 * 0.5) / 4)
    assert pose_auc([4.0], [4])[0] == 0.0  # an error equal to the threshold is outside
    assert np.isnan(pose_auc([], [5])[0])
