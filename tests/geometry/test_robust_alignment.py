import pytest
import torch

from unposed.geometry import robust_alignment
from unposed.geometry.anchor_search import Elements, best_anchor
from unposed.geometry.robust_alignment import (
    align_depth_affine,
    align_depth_scale,
    align_points_scale,
    align_points_scale_xyz_shift,
    align_points_scale_z_shift,
    align_points_xyz_shift,
    align_points_z_shift,
    fit_depth_affine,
)
from unposed.geometry.truncated_l1 import fit_scale

TRUNCATIONS = [None, 1.0, 0.1]


def problem(n, batch=1, seed=0, outliers=0.15):
    stream = torch.Generator().manual_seed(seed)
    z = 1 / (0.05 + 0.9 * torch.rand(batch, n, 1, generator=stream))
    target = torch.cat([1.4 * (torch.rand(batch, n, 2, generator=stream) - 0.5) * z, z], -1)
    source = target / 2.3 * (1 + 0.05 * torch.randn(batch, n, 1, generator=stream))
    source[..., 2] += 0.4
    wild = torch.rand(batch, n, 1, generator=stream) < outliers
    source = torch.where(wild, source * (0.2 + 2 * torch.rand(batch, n, 1, generator=stream)), source)
    return source, target, (torch.rand(batch, n, generator=stream) > 0.1) / z[..., 0]


def loss(source, target, weights, found, truncation):
    error = weights[..., None] * (found.scale[:, None, None] * source + found.shift[:, None] - target).abs()
    return (error if truncation is None else error.clamp(max=truncation)).sum((1, 2))


@pytest.mark.parametrize("truncation", [None, 0.5, 0.05])
def test_the_scale_is_the_best_of_all_ratios(truncation):
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(40, 50, generator=stream)
    y = 1.7 * x + 0.2 * torch.randn(40, 50, generator=stream)
    weights = torch.rand(40, 50, generator=stream) * (torch.rand(40, 50, generator=stream) > 0.2)
    x[:, 3] = 0
    fit = fit_scale(x, y, weights, truncation)
    ratios = (y / x).double()
    errors = weights[:, None].double() * (ratios[..., None] * x[:, None] - y[:, None]).abs()
    losses = (errors if truncation is None else errors.clamp(max=truncation)).sum(-1)
    best = losses.nan_to_num(torch.inf, posinf=torch.inf).amin(1)
    assert torch.allclose(fit.loss.double(), best, rtol=1e-5)
    assert torch.allclose(fit.scale, (y / x).gather(1, fit.element[:, None])[:, 0])


def test_gradients_flow_through_the_chosen_element_only():
    x = torch.tensor([[1.0, 2.0, -3.0]], requires_grad=True)
    y = torch.tensor([[2.0, 4.4, -6.3]])
    fit = fit_scale(x, y, torch.ones(1, 3))
    fit.scale.sum().backward()
    assert x.grad.count_nonzero() == 1
    assert x.grad[0, fit.element] == pytest.approx(-float(fit.scale) / float(x[0, fit.element]))


def test_rows_without_weight_are_harmless():
    x, y = torch.zeros(2, 4), torch.ones(2, 4)
    assert fit_scale(x, y, torch.zeros(2, 4)).loss.tolist() == [0, 0]
    source, target, weights = problem(300)
    found = align_points_scale_z_shift(source, target, torch.zeros_like(weights), 1.0)
    assert found.scale.isfinite().all()


@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize("align", [align_points_scale_z_shift, align_points_scale_xyz_shift])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_search_finds_what_trying_every_anchor_finds(align, truncation, seed, monkeypatch):
    source, target, weights = problem(120, seed=seed)
    every = align(source, target, weights, truncation)
    monkeypatch.setattr(robust_alignment, "_SMALL", 0)
    searched = align(source, target, weights, truncation)
    losses = [loss(source, target, weights, found, truncation) for found in (every, searched)]
    assert torch.allclose(*losses, rtol=1e-5)
    assert torch.allclose(every.scale, searched.scale, rtol=1e-5)
    assert torch.allclose(every.shift, searched.shift, atol=1e-4)


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_the_search_finds_scales_of_any_sign_and_size(truncation, monkeypatch):
    monkeypatch.setattr(robust_alignment, "_SMALL", 0)
    for factor in (-1.0, 1e-3, 1e4):
        source, target, weights = problem(100, outliers=0.1)
        turned = source * factor
        found = align_points_scale_xyz_shift(turned, target, weights, truncation)
        plain = align_points_scale_xyz_shift(source, target, weights, truncation)
        assert torch.allclose(found.scale * factor, plain.scale, rtol=1e-4)


def test_unrelated_numbers_have_an_optimum_too(monkeypatch):
    stream = torch.Generator().manual_seed(3)
    source, target = torch.randn(1, 90, 3, generator=stream), torch.randn(1, 90, 3, generator=stream)
    weights = torch.rand(1, 90, generator=stream)
    every = align_points_scale_xyz_shift(source, target, weights, 1.0)
    monkeypatch.setattr(robust_alignment, "_SMALL", 0)
    searched = align_points_scale_xyz_shift(source, target, weights, 1.0)
    assert torch.allclose(every.scale, searched.scale, rtol=1e-5)


def test_known_alignments_come_back_despite_outliers():
    source, _, weights = problem(400, batch=2, outliers=0.0)
    scale, shift = torch.tensor([1.7, 0.4]), torch.tensor([[0.0, 0, 1.0], [0, 0, -0.3]])
    exact = scale[:, None, None] * source + shift[:, None]
    exact[:, ::5] += 3
    for align in (align_points_scale_z_shift, align_points_scale_xyz_shift):
        found = align(source, exact, weights, 1.0)
        assert torch.allclose(found.scale, scale, rtol=1e-4)
        assert torch.allclose(found.shift, shift, atol=1e-3)
    depth = align_depth_affine(source[..., 2], exact[..., 2], weights, 1.0)
    assert torch.allclose(depth.scale, scale, rtol=1e-4)
    assert torch.allclose(depth.shift, shift[:, 2], atol=1e-3)
    assert torch.allclose(align_points_xyz_shift(source, source + shift[:, None], weights), shift, atol=1e-5)
    assert torch.allclose(align_points_z_shift(source, source + shift[:, None], weights), shift, atol=1e-5)
    assert torch.allclose(align_points_scale(source, scale[:, None, None] * source, weights), scale)
    assert torch.allclose(align_depth_scale(source[..., 2], 3 * source[..., 2], weights), torch.tensor([3.0, 3.0]))
    linear = fit_depth_affine(source[..., 2], 2 * source[..., 2] + 1)
    assert torch.allclose(linear.scale, torch.tensor([2.0, 2.0]), rtol=1e-3)


def test_memory_does_not_grow_with_the_square(monkeypatch):
    largest = 0
    original = torch.Tensor.sort

    def watched(self, *arguments, **options):
        nonlocal largest
        largest = max(largest, self.numel())
        return original(self, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "sort", watched)
    source, target, weights = (values[0].double() for values in problem(1500))
    elements = Elements(source.T, target.T, weights.clamp(min=1e-3), torch.ones(3, dtype=torch.bool))
    best = best_anchor(elements, None)
    assert best.loss > 0
    assert 0 < largest <= 1 << 17
