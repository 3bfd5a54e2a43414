"""Focal length and principal point of the pinhole camera that sees given points at given pixels."""

import torch
from jaxtyping import Float
from torch import Tensor

_ITERATIONS = 30
_TRIALS = 200
"""Pairs of points that are tried as a start."""
_JUDGES = 1000
"""Points that say how good a start is."""
_REACH = 3.0
"""Points further from their pixel than so many standard deviations of the others hardly count."""
_SHARPEST = 1e-4
"""Smallest standard deviation that is believed, as a share of the spread of the pixels."""


def fit_pinhole(
    pixels: Float[Tensor, "n 2"],
    points: Float[Tensor, "n 3"],
    weights: Float[Tensor, "n"] | None = None,
    principal_point: Float[Tensor, "2"] | None = None,
) -> tuple[float, Float[Tensor, "2"]]:
    """Focal f and principal point c (pixels) of ``pixel = f (x, y) / z + c``, square pixels, robustly.

    The start is the pair of points with the least median residual, which stands up to nearly half of the points being
    wrong, wherever they lie. From there iteratively re-weighted least squares, linear in f and c and so in closed form,
    with Geman-McClure weights at the scale of the median residual. A given ``principal_point`` is kept.

    Args:
        pixels: Where the points are seen.
        points: In the frame of the camera; those with z <= 0 do not count.
        weights: How much each point counts; all the same by default.
        principal_point: Where it is known.

    Returns:
        f, nan where no points tell it (fewer than three, or all on one ray), and c, both in float64.
    """
    points, pixels = points.double(), pixels.double()
    base = torch.ones_like(points[:, 0]) if weights is None else weights.double()
    usable = (points[:, 2] > 0) & points.isfinite().all(-1) & (base > 0)
    pixels, base = pixels[usable], base[usable]
    slopes = points[usable, :2] / points[usable, 2:]
    if len(slopes) < 3:
        return float("nan"), pixels.new_full((2,), torch.nan) if principal_point is None else principal_point.double()
    smallest = _SHARPEST * float(pixels.std(0).norm())
    focal, centre = _start(pixels, slopes, base, principal_point)
    for _ in range(_ITERATIONS):
        distance = (pixels - focal * slopes - centre).norm(dim=-1)
        scale = _REACH * max(1.4826 * float(distance.median()), smallest)
        weight = base / (1 + (distance / scale).square()).square()
        focal, centre = _least_squares(pixels, slopes, weight, principal_point)
    return float(focal), centre


def _start(
    pixels: Float[Tensor, "n 2"], slopes: Float[Tensor, "n 2"], weight: Float[Tensor, "n"], centre: Tensor | None
) -> tuple[Float[Tensor, ""], Float[Tensor, "2"]]:
    """Least median of squares over random pairs of points, or single points where the principal point is known."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(weight, 2 * _TRIALS + _JUDGES, replacement=True, generator=generator)
    pairs, judges = drawn[: 2 * _TRIALS].reshape(_TRIALS, 2), drawn[2 * _TRIALS :]
    focals, centres = _least_squares(pixels[pairs], slopes[pairs], torch.ones_like(weight[pairs]), centre)
    residual = pixels[judges] - focals[:, None, None] * slopes[judges] - centres[:, None]
    best = residual.square().sum(-1).nan_to_num(torch.inf).median(-1).values.argmin()
    return focals[best], centres[best]


def _least_squares(
    pixels: Float[Tensor, "*batch n 2"],
    slopes: Float[Tensor, "*batch n 2"],
    weight: Float[Tensor, "*batch n"],
    centre: Float[Tensor, "2"] | None,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 2"]]:
    """Closed form: f from both sets about their weighted means, or about a known principal point."""
    weight = weight[..., None]
    total = weight.sum(-2)
    if centre is None:
        mean_pixel, mean_slope = (weight * pixels).sum(-2) / total, (weight * slopes).sum(-2) / total
    else:
        mean_pixel, mean_slope = centre.to(pixels).expand_as(pixels[..., 0, :]), torch.zeros_like(slopes[..., 0, :])
    u, q = pixels - mean_pixel[..., None, :], slopes - mean_slope[..., None, :]
    focal = (weight * u * q).sum((-2, -1)) / (weight * q.square()).sum((-2, -1))
    return focal, mean_pixel - focal[..., None] * mean_slope
