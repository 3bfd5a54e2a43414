import numpy as np
import pytest
import torch
from evo.core import metrics
from evo.core.trajectory import PosePath3D

from unposed.evaluation.trajectory import DegeneratePathError, align_path, trajectory_errors
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import rigid


def _path(frames: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A wobbling walk and a noisy one in another frame and scale."""
    generator = torch.Generator().manual_seed(frames)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    truth = rigid(matrix_from_axis_angle(0.3 * random(frames, 3)), 0.2 * random(frames, 3).cumsum(0))
    found = truth @ rigid(matrix_from_axis_angle(noise * random(frames, 3)), noise * random(frames, 3))
    found = rigid(matrix_from_axis_angle(random(3)), random(3)) @ found
    found[:, :3, 3] *= 2.5
    return found, truth


@pytest.mark.parametrize("alignment", ["sim3", "se3", "none"])
@pytest.mark.parametrize("delta", [1, 3])
def test_agrees_with_evo(alignment: str, delta: int) -> None:
    found, truth = _path(20, 0.05)
    errors = trajectory_errors(found, truth, alignment, delta)
    reference, estimate = (PosePath3D(poses_se3=list(poses.numpy())) for poses in (truth, found))
    if alignment != "none":
        estimate.align(reference, correct_scale=alignment == "sim3")
    wanted = []
    for metric in (
        metrics.APE(metrics.PoseRelation.translation_part),
        metrics.RPE(metrics.PoseRelation.translation_part, delta, metrics.Unit.frames, all_pairs=True),
        metrics.RPE(metrics.PoseRelation.rotation_angle_deg, delta, metrics.Unit.frames, all_pairs=True),
    ):
        metric.process_data((reference, estimate))
        wanted.append(metric.get_statistic(metrics.StatisticsType.rmse))
    got = [errors.absolute, errors.relative_translation, errors.relative_rotation_deg]
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_a_perfect_path_in_another_frame_has_no_error() -> None:
    found, truth = _path(6, 0.0)
    errors = trajectory_errors(found, truth)
    assert max(errors.absolute, errors.relative_translation, errors.relative_rotation_deg) < 1e-6
    assert trajectory_errors(found, truth, "se3").absolute > 0.1  # the scale is wrong


def test_a_path_that_fixes_no_alignment_is_said_to_be_degenerate() -> None:
    found, truth = _path(5, 0.0)
    resting = truth.clone()
    resting[:, :3, 3] = 1
    straight = truth.clone()
    straight[:, :3, 3] = torch.arange(5, dtype=torch.float64)[:, None]
    for predicted, true in ((resting, truth), (found, resting), (straight, truth), (found[:2], truth[:2])):
        with pytest.raises(DegeneratePathError):
            align_path(predicted, true, "sim3")
