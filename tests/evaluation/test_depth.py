import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from unposed.evaluation.depth import DepthRule, depth_metrics, least_absolute_line, reweighted_scale


def _maps() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    truth = 1 + 4 * torch.rand(2, 9, 11, generator=generator)
    return truth * (1 + 0.05 * torch.randn(truth.shape, generator=generator)), truth


@pytest.mark.parametrize(
    ("alignment", "scale", "shift"),
    [
        ("metric", 1, 0),
        ("median", 3, 0),
        ("scale", 3, 0),
        ("scale-shift", 3, -0.5),
        ("least-squares", 3, -0.5),
    ],
)
def test_each_alignment_undoes_what_it_says(alignment: str, scale: float, shift: float) -> None:
    _, truth = _maps()
    metrics = depth_metrics(truth * scale + shift, truth, DepthRule(alignment))
    assert metrics["AbsRel"] < 1e-5
    assert metrics["delta1"] == 1
    assert metrics["valid_pixels"] == truth.numel()


def test_metrics_by_hand() -> None:
    truth = torch.tensor([1.0, 2.0, 4.0, 0.0])
    found = torch.tensor([1.0, 3.0, 2.0, 9.0])
    metrics = depth_metrics(found, truth, DepthRule("metric"))
    assert metrics["AbsRel"] == pytest.approx(1 / 3)
    assert metrics["SqRel"] == pytest.approx(0.5)
    assert metrics["RMSE"] == pytest.approx(math.sqrt(5 / 3))
    assert metrics["LogRMSE"] == pytest.approx(math.sqrt((math.log(1.5) ** 2 + math.log(2) ** 2) / 3))
    assert [metrics[f"delta{k}"] for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_far_truth_is_left_out_and_predictions_are_clipped_on_request() -> None:
    truth, found = torch.tensor([1.0, 60.0, 90.0]), torch.tensor([1.0, 100.0, 1.0])
    metrics = depth_metrics(found, truth, DepthRule("metric", max_depth=70, clip=70))
    assert metrics["valid_pixels"] == 2
    assert metrics["RMSE"] == pytest.approx(10 / math.sqrt(2))


def test_an_unknown_prediction_costs_its_pixel_and_moves_no_alignment() -> None:
    truth = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = torch.tensor([2.0, math.nan, 6.0, 8.0])
    metrics = depth_metrics(found, truth)
    assert metrics["AbsRel"] == pytest.approx(0.25)
    assert metrics["delta3"] == 0.75
    nothing = depth_metrics(torch.full((4,), math.nan), truth)
    assert nothing["AbsRel"] == 1
    assert math.isnan(depth_metrics(found, torch.zeros(4))["AbsRel"])


def test_disparity_is_aligned_as_disparity() -> None:
    _, truth = _maps()
    rule = DepthRule("least-squares", in_disparity=True)
    assert depth_metrics(5 / truth + 2, truth, rule)["AbsRel"] < 1e-4


def test_least_absolute_line_is_the_linear_programme() -> None:
    found, truth = (values.flatten() for values in _maps())
    truth = truth.clone()
    truth[:20] += 30  # outliers that least squares would follow
    scale, shift = least_absolute_line(found, truth)
    n = len(found)
    x, y = found.double().numpy(), truth.double().numpy()
    rows = np.stack([x, np.ones(n)], 1)
    upper = np.block([[rows, -np.eye(n)], [-rows, -np.eye(n)]])
    best = linprog(
        np.r_[0, 0, np.ones(n)], upper, np.r_[y, -y], bounds=[(None, None)] * 2 + [(0, None)] * n, method="highs"
    )
    assert np.abs(y - scale * x - shift).sum() == pytest.approx(best.fun, rel=1e-8)


def test_reweighted_scale_resists_outliers_and_stays_positive() -> None:
    found, truth = (values.flatten() for values in _maps())
    truth = truth.clone()
    truth[:20] *= 50
    assert reweighted_scale(found, truth) == pytest.approx(1, abs=0.05)
    assert reweighted_scale(found, -truth) == pytest.approx(1e-3)


def test_the_unfinished_optimisation_depends_on_its_steps() -> None:
    found, truth = _maps()
    few, many = (depth_metrics(found + 1, truth, DepthRule("lad2", steps=n)) for n in (5, 1000))
    exact = depth_metrics(found + 1, truth, DepthRule("scale-shift"))
    assert exact["AbsRel"] < many["AbsRel"] < few["AbsRel"]
