import pytest
import torch

from unposed.train.losses import (
    ConfidenceWeighted,
    PairOutput,
    PairTruth,
    Regression,
    WeightedSum,
    masked_mean,
    optimal_scaling,
)
from unposed.train.metric_losses import MetricRegression

MODES = ["avg_dis", "avg_log1p", "avg_warp-log1p", "median_dis", "sqrt_dis"]


def pair(seed: int = 0, sizes=((4, 6), (6, 4))):
    generator = torch.Generator().manual_seed(seed)
    points = tuple(torch.randn(2, *size, 3, generator=generator) + torch.tensor([0.0, 0, 4]) for size in sizes)
    valid = tuple(torch.rand(2, *size, generator=generator) < 0.7 for size in sizes)
    return points, PairTruth(points, valid)


@pytest.mark.parametrize("mode", ["avg_dis", "median_dis", "sqrt_dis"])
def test_normalised_regression_does_not_see_the_scale(mode):
    points, truth = pair()
    loss = Regression(mode)
    assert loss(PairOutput(tuple(7 * p for p in points)), truth).total == pytest.approx(0, abs=1e-5)
    assert Regression(None)(PairOutput(tuple(7 * p for p in points)), truth).total > 1


def test_shift_and_scale_invariance():
    points, truth = pair()
    moved = tuple(3 * p + torch.tensor([0.0, 0, 5]) for p in points)
    plain, both = Regression(), Regression(shift_invariant=True, scale_invariant=True)
    assert plain(PairOutput(moved), truth).total > 0.1
    assert both(PairOutput(moved), truth).total == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("mode", [None, *MODES])
def test_pixels_without_truth_have_no_influence_whatever_they_hold(mode):
    points, truth = pair()
    predicted = [(p + 0.1 * torch.randn_like(p)).requires_grad_() for p in points]
    confidence = [torch.full(p.shape[:3], 2.0) for p in points]
    poisoned = tuple(torch.where(v[..., None], p, torch.nan) for p, v in zip(points, truth.valid, strict=True))
    loss = ConfidenceWeighted(Regression(mode))
    results = []
    for target in (points, poisoned):
        total = loss(PairOutput(tuple(predicted), tuple(confidence)), PairTruth(target, truth.valid)).total
        gradient = torch.autograd.grad(total, predicted)
        assert all(g.isfinite().all() for g in gradient)
        assert all((g[~v] == 0).all() for g, v in zip(gradient, truth.valid, strict=True))
        results.append(total.item())
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_an_empty_view_counts_zero():
    points, truth = pair()
    empty = PairTruth(points, (truth.valid[0], torch.zeros_like(truth.valid[1])))
    loss = ConfidenceWeighted()(PairOutput(points, tuple(torch.full(p.shape[:3], 2.0) for p in points)), empty)
    assert loss.parts["confidence_2"] == 0
    assert loss.total.isfinite()
    assert masked_mean(torch.full((3,), torch.nan), torch.zeros(3, dtype=torch.bool)) == 0


def test_confidence_grows_where_the_points_are_right():
    points, truth = pair()
    wrong = (points[0], points[1] + 2.0)
    raw = [torch.zeros(p.shape[:3], requires_grad=True) for p in points]
    loss = ConfidenceWeighted(Regression(None))
    total = loss(PairOutput(wrong, tuple(1 + r.exp() for r in raw)), truth).total
    good, bad = torch.autograd.grad(total, raw)
    assert good[truth.valid[0]].mean() < 0 < bad[truth.valid[1]].mean()
    with pytest.raises(ValueError, match="confidences"):
        loss(PairOutput(wrong), truth)


def test_sums_keep_factors_and_parts():
    points, truth = pair()
    output = PairOutput(tuple(p * torch.tensor([1.0, 1, 2]) for p in points))
    first, second = Regression(), Regression(shift_invariant=True)
    both = WeightedSum([(1.0, first), (0.5, second)])(output, truth)
    assert both.total.item() == pytest.approx((first(output, truth).total + 0.5 * second(output, truth).total).item())
    assert len(both.parts) == 4


@pytest.mark.parametrize("mode", ["avg", "median", "weiszfeld"])
def test_optimal_scaling_finds_the_scale(mode):
    points, truth = pair()
    assert optimal_scaling(tuple(0.4 * p for p in points), points, truth.valid, mode).tolist() == pytest.approx(
        [0.4, 0.4]
    )


def test_robust_scaling_ignores_a_few_wild_points():
    points, truth = pair(sizes=((20, 20), (20, 20)))
    wild = (torch.where(torch.rand(2, 20, 20, 1) < 0.1, 100.0, 0.4) * points[0], 0.4 * points[1])
    for mode in ("median", "weiszfeld"):
        assert optimal_scaling(wild, points, truth.valid, mode).tolist() == pytest.approx([0.4, 0.4], rel=0.02)


def test_truth_moves_to_camera_1_and_drops_what_is_far():
    points = (torch.tensor([0.0, 0, 9]).expand(1, 2, 2, 3), torch.tensor([0.0, 0, 3]).expand(1, 2, 2, 3))
    back = torch.eye(4)[None].clone()
    back[0, 2, 3] = -1
    valid = (torch.ones(1, 2, 2), torch.ones(1, 2, 2))
    truth = PairTruth.from_world(points, valid, back, max_distance=4)
    assert truth.points[0][0, 0, 0].tolist() == [0, 0, 8]
    assert not truth.valid[0].any()
    assert truth.valid[1].all()


def test_confidence_falls_in_the_sky():
    points, truth = pair()
    sky = tuple(~v for v in truth.valid)
    raw = [torch.zeros(p.shape[:3], requires_grad=True) for p in points]
    output = PairOutput(points, tuple(1 + r.exp() for r in raw))
    total = ConfidenceWeighted(MetricRegression())(output, PairTruth(truth.points, truth.valid, sky=sky)).total
    for gradient, above in zip(torch.autograd.grad(total, raw), sky, strict=True):
        assert (gradient[above] > 0).all()
        assert (gradient[~above] < 0).all()


def test_a_metric_pair_keeps_its_scale():
    points, truth = pair()
    metric = PairTruth(truth.points, truth.valid, metric=torch.tensor([True, False]))
    doubled = PairOutput(tuple(2 * p for p in points))
    distances, counted = MetricRegression().distances(doubled, metric)
    assert distances[0][0][counted[0][0]].min() > 0.1
    assert distances[0][1][counted[0][1]].max() < 1e-5
    assert MetricRegression(max_metric_scale=1.0)(doubled, metric).total < 1e-4
