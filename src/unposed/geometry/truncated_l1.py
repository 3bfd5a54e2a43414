"""The best scale between two sets of numbers under a truncated L1 loss, exactly and for many sets at once.

Minimised over a, per row: L(a) = sum_i min(tau, w_i |a x_i - y_i|) (MoGe, section 3.2 and supplement: the ROE solver).
L is piecewise linear. Term i falls until a = y_i / x_i and rises after it, and is flat where it is truncated, so a
minimum is at the ratio of some element: sorting all points where a slope changes and walking along them finds it.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

EPSILON = 1e-7
"""Smallest denominator."""
_NEGLIGIBLE = 1e-9
"""An element whose slope is below this share of the steepest has no ratio worth the name; it counts as constant."""


class ScaleFit(NamedTuple):
    """The best scale of every row."""

    scale: Float[Tensor, "rows"]
    """y / x of ``element``; gradients flow through that element."""
    loss: Float[Tensor, "rows"]
    """The objective there, without gradient."""
    element: Int64[Tensor, "rows"]


def fit_scale(
    x: Float[Tensor, "rows n"],
    y: Float[Tensor, "rows n"],
    weights: Float[Tensor, "rows n"],
    truncation: float | None = None,
) -> ScaleFit:
    """The scale a that minimises ``sum min(truncation, weights |a x - y|)`` in every row; it may be negative.

    Elements of weight 0 do not count; a row without any other gets the ratio of its first element.
    """
    with torch.no_grad():
        values, targets, factors = (tensor.detach().double() for tensor in (x, y, weights))
        slopes = factors * values.abs()
        moving = slopes > _NEGLIGIBLE * slopes.amax(1, keepdim=True)
        values = torch.where(moving, values, 0.0)
        ratios = torch.where(moving, targets / torch.where(moving, values, 1.0), torch.nan)
        low, high = ratios.nan_to_num(torch.inf).amin(1), ratios.nan_to_num(-torch.inf).amax(1)
        beyond = 1e-3 * (high - low) + 1e-6 * (high.abs() + low.abs()) + 1e-30
        bounds = (torch.where(moving.any(1), bound, 0.0) for bound in (low - beyond, high + beyond))
        index = minimise_between(values, targets, factors, truncation, *bounds)[1]
        chosen = ratios.gather(1, index[:, None]).nan_to_num(0.0)
        loss = (factors * (chosen * values - targets).abs()).clamp(max=_limit(truncation)).sum(1)
    chosen_x, chosen_y = (tensor.gather(1, index[:, None])[:, 0] for tensor in (x, y))
    sign = torch.where(chosen_x < 0, -1.0, 1.0).to(x)
    return ScaleFit(sign * chosen_y / (sign * chosen_x).clamp(min=EPSILON), loss.to(x), index)


def _limit(truncation: float | None) -> float:
    return math.inf if truncation is None else truncation


def minimise_between(
    x: Float[Tensor, "rows n"],
    y: Float[Tensor, "rows n"],
    weights: Float[Tensor, "rows n"],
    truncation: float | None,
    low: Float[Tensor, "rows"],
    high: Float[Tensor, "rows"],
) -> tuple[Float[Tensor, "rows"], Int64[Tensor, "rows"]]:
    """Smallest loss at the ratios y / x that lie in (low, high), and the element whose ratio it is; in float64.

    Only slope changes within the bounds are sorted, which is what makes narrow bounds cheap. A row without any such
    ratio has an infinite loss and element 0.
    """
    tau = _limit(truncation)
    before, after = low[:, None] * x - y, high[:, None] * x - y
    cost, cost_after = weights * before.abs(), weights * after.abs()
    turns = (before * after < 0) & (weights > 0)
    slope = torch.where(cost < tau, weights * x * before.sign(), 0.0).sum(1)
    loss = cost.clamp(max=tau).sum(1)
    changes = [(turns, 2.0, 0.0)]
    if truncation is not None:
        changes += [
            ((cost > tau) & (turns | (cost_after < tau)), -1.0, -truncation),
            ((cost_after > tau) & (turns | (cost < tau)), -1.0, truncation),
        ]
    parts = []
    for happens, factor, level in changes:
        row, element = happens.nonzero(as_tuple=True)
        here, weight = x[row, element], weights[row, element]
        steepness = weight * here.abs()
        place = y[row, element] / here + level / steepness
        parts.append((row, place, factor * steepness, element if level == 0 else torch.full_like(element, -1)))
    walk = _Walk(*(torch.cat(values) for values in zip(*parts, strict=True)))
    return walk.ordered(low, high).lowest(low, loss, slope)


class _Walk(NamedTuple):
    """Slope changes of all rows."""

    row: Int64[Tensor, "changes"]
    place: Float[Tensor, "changes"]
    change: Float[Tensor, "changes"]
    element: Int64[Tensor, "changes"]
    """Whose ratio it is; -1 where the change is an edge of a truncated term."""

    def ordered(self, low: Float[Tensor, "rows"], high: Float[Tensor, "rows"]) -> "_Walk":
        """One row after the other, and by place within a row."""
        span = (high - low).clamp(min=1e-300)
        inside = ((self.place - low[self.row]) / span[self.row]).clamp(0, 1)
        order = (self.row + 0.9 * inside).argsort()
        return _Walk(*(values[order] for values in self))

    def lowest(
        self, low: Float[Tensor, "rows"], loss: Float[Tensor, "rows"], slope: Float[Tensor, "rows"]
    ) -> tuple[Float[Tensor, "rows"], Int64[Tensor, "rows"]]:
        """Walk every row from ``low``, where its loss and slope are known, to its smallest loss at a ratio."""
        best = torch.full_like(loss, torch.inf)
        element = torch.zeros_like(loss, dtype=torch.int64)
        if len(self.row) == 0:
            return best, element
        opens = torch.cat([self.row.new_ones(1, dtype=torch.bool), self.row[1:] != self.row[:-1]])
        opening = opens.nonzero()[:, 0][opens.cumsum(0) - 1]  # the first change of the row of every change
        previous = torch.where(opens, low[self.row], self.place.roll(1))
        total = self.change.cumsum(0) - self.change
        rise = (slope[self.row] + total - total[opening]) * (self.place - previous)
        climbed = rise.cumsum(0)
        here = loss[self.row] + climbed - (climbed - rise)[opening]
        here = torch.where(self.element >= 0, here, torch.inf)
        best = best.scatter_reduce(0, self.row, here, "amin")
        winners = ((here == best[self.row]) & (self.element >= 0)).nonzero()[:, 0]
        element[self.row[winners]] = self.element[winners]
        return best, element
