"""Depth maps against true ones: alignments and metrics, as the dynamic-scene papers (MonST3R, CUT3R) report them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize_scalar
from torch import Tensor

Alignment = Literal["metric", "median", "scale", "scale-shift", "least-squares", "lad2"]
"""What is fitted to the truth before comparing:

- ``metric``: nothing;
- ``median``: a scale, the ratio of the (lower) medians;
- ``scale``: the scale of least absolute error, by ten reweighted least squares as published;
- ``scale-shift``: scale and shift of least absolute error, solved exactly (our default where no table is compared);
- ``least-squares``: scale and shift of least squared error;
- ``lad2``: what the papers report as scale and shift: 1000 steps of Adam at 1e-4 towards ``scale-shift``, which do not
  arrive; its numbers depend on the unit of depth.
"""

METRICS = ("AbsRel", "SqRel", "RMSE", "LogRMSE", "delta1", "delta2", "delta3", "valid_pixels")
Values = Float[Tensor, "pixels"]


@dataclass(frozen=True)
class DepthRule:
    """How a benchmark compares depth."""

    alignment: Alignment = "median"
    max_depth: float | None = None
    """True depths at or beyond it are left out."""
    clip: float | None = None
    """Aligned depths beyond it are set to it."""
    in_disparity: bool = False
    """The prediction is a disparity and is aligned as one."""
    inlier_ratio: float = 1.25
    """``delta_k`` is the share of pixels with a ratio below its k-th power."""
    steps: int = 1000
    """Of ``lad2``."""
    learning_rate: float = 1e-4
    """Of ``lad2``."""


def depth_metrics(
    predicted: Float[Tensor, "*shape"],
    truth: Float[Tensor, "*shape"],
    rule: DepthRule = DepthRule(),
    mask: Bool[Tensor, "*shape"] | None = None,
) -> dict[str, float]:
    """Errors over the pixels where truth is known: one map, or the maps of a video aligned as one.

    NaN in the prediction is unknown: it takes no part in the alignment and counts as depth 0, an error of 100 %.
    ``mask`` limits the pixels whose errors count, not those that are aligned, as published. ``delta1`` is the fraction
    of pixels with ``max(d / g, g / d) < 1.25``; RMSE and SqRel are in the unit of the truth. Without a known pixel all
    metrics are NaN.
    """
    known = truth > 0
    if rule.max_depth is not None:
        known &= truth < rule.max_depth
    counted = known if mask is None else known & mask
    if not counted.any():
        return dict.fromkeys(METRICS, float("nan")) | {"valid_pixels": 0.0}
    d, g = predicted[known].float(), truth[known].float()
    there = d.isfinite()
    d[there] = _aligned(d[there], g[there], rule)
    d, g = d.nan_to_num(0.0)[counted[known]], g[counted[known]]
    if rule.clip is not None:
        d = d.clamp(max=rule.clip)
    error = d - g
    safe = d.clamp(min=1e-5)
    ratio = torch.maximum(safe / g, g / safe)
    values = [
        (error.abs() / g).mean(),
        (error.square() / g).mean(),
        error.square().mean().sqrt(),
        (safe.log() - g.log()).square().mean().sqrt(),
        *((ratio < rule.inlier_ratio**k).float().mean() for k in (1, 2, 3)),
    ]
    return dict(zip(METRICS, [*(value.item() for value in values), float(len(g))], strict=True))


def _aligned(d: Values, g: Values, rule: DepthRule) -> Values:
    if len(d) == 0:
        return d
    if not rule.in_disparity:
        return _fitted(d, g, rule)
    fitted = _fitted(d, 1 / (g + 1e-8), rule)
    return torch.where(fitted > 0, 1 / fitted.clamp(min=1e-12), 0.0)


def _fitted(d: Values, g: Values, rule: DepthRule) -> Values:
    match rule.alignment:
        case "metric":
            return d
        case "median":
            return d * (g.median() / d.median())
        case "scale":
            return d * reweighted_scale(d, g)
        case "scale-shift":
            scale, shift = least_absolute_line(d, g)
        case "least-squares":
            scale, shift = _least_squares_line(d, g)
        case "lad2":
            scale, shift = _unfinished_absolute_line(d, g, rule.steps, rule.learning_rate)
    return d * scale + shift


def reweighted_scale(d: Values, g: Values) -> float:
    """Scale s of least ``sum |s d - g|`` after ten reweighted least squares, at least 0.001 (MonST3R)."""
    scale = g.mean() / d.mean()
    for _ in range(10):
        weight = 1 / ((scale * d - g).abs() + 1e-8)
        scale = (weight * d * g).sum() / (weight * d**2).sum()  # rounding grows here: the published order of products
    return float(scale.clamp(min=1e-3))


def least_absolute_line(d: Values, g: Values) -> tuple[float, float]:
    """Scale s and shift t of least ``sum |s d + t - g|``.

    For a given scale the best shift is a median, and what is left is convex in the scale alone.
    """
    x, y = d.double().numpy(), g.double().numpy()

    def cost(scale: float) -> float:
        residual = y - scale * x
        return float(np.abs(residual - np.median(residual)).mean())

    start = float(np.median(y) / max(np.median(x), 1e-12))
    scale = minimize_scalar(cost, bracket=(0.9 * start, 1.1 * start), tol=1e-10).x
    return float(scale), float(np.median(y - scale * x))


def _least_squares_line(d: Values, g: Values) -> tuple[float, float]:
    x, y = d.double(), g.double()
    centred = x - x.mean()
    scale = (centred * y).sum() / centred.square().sum().clamp(min=1e-300)
    return float(scale), float(y.mean() - scale * x.mean())


def _unfinished_absolute_line(d: Values, g: Values, steps: int, learning_rate: float) -> tuple[float, float]:
    scale = (g.median() / d.median()).clone().requires_grad_()
    shift = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam([scale, shift], lr=learning_rate)
    before = None
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (scale * d + shift - g).abs().sum()
        loss.backward()
        optimiser.step()
        value = loss.item()
        if before is not None and abs(before - value) < 1e-6:
            break
        before = value
    return scale.item(), shift.item()
