"""The best scale and shift under a truncated L1 loss: branch and bound over which element has no residual.

A shift is gone once an element, the anchor, is subtracted from all others; what is left for each anchor is the scalar
problem of ``truncated_l1`` (MoGe, section 3.2: parallelised over all anchors, N problems of N elements). Here a scale
is an angle, and for one angle the losses of ALL anchors come from sorting projections once: sums of hats at sorted
places. Between angles losses change no faster than projections do, which bounds them from below. Intervals of angles,
and anchors within them, that cannot hold the optimum fall away; the few that are left are solved exactly. The result
is the same as that of looking at every anchor, without ever holding N x N numbers.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from unposed.geometry.truncated_l1 import minimise_between

_FIRST_INTERVALS = 32
_LEVELS = 14
"""How often an interval is halved at most before what is left of it is solved exactly."""
_LARGEST_SCALE = 100.0
"""Scales are searched up to so many times the ratio of the spreads of y and x, either sign."""
_WORTH = 4
"""Intervals are halved while that many times more anchors are left, per anchored coordinate: the losses of all anchors
at one scale cost as much as the exact solution of a few anchors."""
_MARGIN = 1 + 1e-9


def block_size(device: torch.device) -> int:
    """Numbers to hold in one array at a time: what stays in a processor's cache, or keeps a GPU busy."""
    return 1 << 17 if device.type == "cpu" else 1 << 22


class Elements(NamedTuple):
    """One problem, in float64: numbers to align, in one or more coordinates that share anchors."""

    x: Float[Tensor, "coordinates n"]
    y: Float[Tensor, "coordinates n"]
    weights: Float[Tensor, "n"]
    """Positive."""
    anchored: Bool[Tensor, "coordinates"]
    """Coordinates from which the anchor is subtracted; the others have no shift."""

    def offsets(self, anchors: Int64[Tensor, "anchors"]) -> tuple[Tensor, Tensor]:
        """What anchors subtract from x and y, coordinates x anchors."""
        keep = self.anchored[:, None]
        return torch.where(keep, self.x[:, anchors], 0.0), torch.where(keep, self.y[:, anchors], 0.0)


class Best(NamedTuple):
    """The optimum."""

    loss: float
    anchor: int
    coordinate: int
    """Coordinate and number of the second element without residual: the two of them make the scale."""
    element: int


class _Candidates(NamedTuple):
    """Anchors with an interval of scales in which each may be the best."""

    anchor: Int64[Tensor, "candidates"]
    low: Float[Tensor, "candidates"]
    high: Float[Tensor, "candidates"]
    bound: Float[Tensor, "candidates"]
    """The loss there is at least this."""


def best_anchor(elements: Elements, truncation: float | None) -> Best:
    """Anchor and second element of the smallest loss."""
    unit = _typical_scale(elements)
    scaled = elements._replace(x=elements.x * unit)  # a scale of 1 is then in the middle of the angles
    candidates, limit = _branch(scaled, truncation)
    order = candidates.bound.argsort()
    candidates = _Candidates(*(values[order] for values in candidates))
    best = Best(math.inf, int(candidates.anchor[0]), 0, int(candidates.anchor[0]))
    step = max(1, block_size(scaled.x.device) // scaled.x.numel())
    for start in range(0, len(order), step):
        some = _Candidates(*(values[start : start + step] for values in candidates))
        if float(some.bound[0]) > limit * _MARGIN:
            break
        best = min(best, _solve(scaled, some, truncation), key=lambda found: found.loss)
        limit = min(limit, best.loss)
    return best


def _typical_scale(elements: Elements) -> float:
    spread_x, spread_y = (
        float((elements.weights * (values - values.median(1, keepdim=True).values)).abs().sum())
        for values in (elements.x, elements.y)
    )
    return spread_y / spread_x if spread_x > 0 and spread_y > 0 else 1.0


def _branch(elements: Elements, truncation: float | None) -> tuple[_Candidates, float]:
    """All anchors that may have the smallest loss, each with the scales where, and an upper bound of that loss."""
    reach = math.atan(_LARGEST_SCALE)
    half = reach / _FIRST_INTERVALS
    steps = torch.arange(_FIRST_INTERVALS, dtype=torch.float64, device=elements.x.device)
    centres, limit = (2 * steps + 1) * half - reach, math.inf
    worth = _WORTH * int(elements.anchored.sum())
    for level in range(_LEVELS + 1):
        at_centre, bound = _losses(elements, centres, half, truncation)
        limit = min(limit, float(at_centre.min()))
        alive = bound <= limit * _MARGIN
        interesting = alive.any(1)
        centres, bound, alive = centres[interesting], bound[interesting], alive[interesting]
        if level == _LEVELS or 2 * len(centres) * worth > int(alive.any(0).sum()):
            break
        centres, half = torch.cat([centres - half / 2, centres + half / 2]), half / 2
    return _merged(alive, bound, centres, half), limit


def _merged(alive: Tensor, bound: Tensor, centres: Tensor, half: float) -> _Candidates:
    """One candidate for each anchor that is alive in any interval: the hull of those, and the lowest bound."""
    anchor = alive.any(0).nonzero()[:, 0]
    alive, bound = alive[:, anchor], bound[:, anchor]
    low = torch.where(alive, (centres - half).tan()[:, None], torch.inf).amin(0)
    high = torch.where(alive, (centres + half).tan()[:, None], -torch.inf).amax(0)
    return _Candidates(anchor, low, high, torch.where(alive, bound, torch.inf).amin(0))


def _losses(
    elements: Elements, angles: Float[Tensor, "angles"], half: float, truncation: float | None
) -> tuple[Float[Tensor, "angles anchors"], Float[Tensor, "angles anchors"]]:
    """Loss of every anchor at scales tan(angle), and a lower bound within ``half`` of the angle.

    A residual at angle t is (sin t x - cos t y) / cos t. At t + d its numerator is cos d times itself plus sin d times
    its derivative, so that min(tau, .) of it is at least that of the former less that of the latter. Without truncation
    the sum is convex, and its own derivative takes the place of those of the terms, which is a far tighter bound.
    """
    step = max(1, block_size(angles.device) // elements.x.numel())
    results = []
    for part in angles.split(step):
        sin, cos = part.sin()[:, None, None], part.cos()[:, None, None]
        centre = 1 / cos[..., 0]
        smallest = 1 / torch.where(part.abs() <= half, 1.0, (part.abs() - half).cos())[:, None]
        values, turned = sin * elements.x - cos * elements.y, cos * elements.x + sin * elements.y
        if truncation is None:
            distance, slope = _distances(elements, values, turned)
            loss, slack = centre * distance, smallest * math.sin(half) * slope.abs()
        else:
            loss = _hats(elements, values, centre, truncation)
            slack = _hats(elements, turned, smallest * math.sin(half), truncation)
        results.append((loss, loss * (smallest * math.cos(half) / centre).clamp(max=1) - slack))
    losses, bounds = zip(*results, strict=True)
    return torch.cat(losses), torch.cat(bounds)


def _hats(
    elements: Elements,
    values: Float[Tensor, "angles coordinates n"],
    factor: Float[Tensor, "angles 1"],
    truncation: float,
) -> Float[Tensor, "angles anchors"]:
    """``sum_i min(truncation, factor w_i |value_i - value_k|)`` over elements and coordinates, for every anchor k.

    In coordinates that are not anchored nothing is subtracted from the values.
    """
    heights = factor * elements.weights
    free = ~elements.anchored
    total = torch.zeros(1, dtype=values.dtype, device=values.device)
    if free.any():
        away = heights[:, None] * values[:, free].abs()
        total = away.clamp(max=truncation).sum((1, 2))[:, None]
    values = values[:, elements.anchored].contiguous()
    heights = heights[:, None].expand_as(values)
    reach = truncation / heights
    peaks = _ramps(values - reach, heights, values) + _ramps(values + reach, heights, values)
    peaks -= 2 * _ramps(values, heights, values)
    return total + (truncation * values.shape[-1] - peaks).sum(1)


def _ramps(starts: Tensor, slopes: Tensor, places: Tensor) -> Float[Tensor, "angles coordinates anchors"]:
    """``sum_i slope_i max(0, place - start_i)`` at every place."""
    starts, order = starts.sort(-1)
    slopes = slopes.gather(-1, order)
    weight, moment = slopes.cumsum(-1), (slopes * starts).cumsum(-1)
    position = torch.searchsorted(starts, places)
    before = (position - 1).clamp(min=0)
    return torch.where(position > 0, places * weight.gather(-1, before) - moment.gather(-1, before), 0.0)


def _distances(
    elements: Elements, values: Float[Tensor, "angles coordinates n"], turned: Float[Tensor, "angles coordinates n"]
) -> tuple[Float[Tensor, "angles anchors"], Float[Tensor, "angles anchors"]]:
    """``sum_i w_i |value_i - value_k|`` for every anchor k, and how it changes as values change by ``turned``."""
    free = values[:, ~elements.anchored]
    distance = (elements.weights * free.abs()).sum((1, 2))[:, None]
    slope = (elements.weights * free.sign() * turned[:, ~elements.anchored]).sum((1, 2))[:, None]
    values, order = values[:, elements.anchored].sort(-1)
    turned = turned[:, elements.anchored].gather(-1, order)
    weights = elements.weights.expand_as(values).gather(-1, order)
    weight, moment, change = (x.cumsum(-1) for x in (weights, weights * values, weights * turned))
    above = weight[..., -1:] - 2 * weight  # weight above an anchor less that up to it
    distances = moment[..., -1:] - 2 * moment - values * above
    slopes = change[..., -1:] - 2 * change - turned * above
    distances, slopes = (torch.empty_like(x).scatter_(-1, order, x) for x in (distances, slopes))
    return distance + distances.sum(1), slope + slopes.sum(1)


def _solve(elements: Elements, some: _Candidates, truncation: float | None) -> Best:
    """The best of some candidates, exactly."""
    offset_x, offset_y = elements.offsets(some.anchor)
    x = (elements.x[:, None] - offset_x[..., None]).permute(1, 0, 2).flatten(1)
    y = (elements.y[:, None] - offset_y[..., None]).permute(1, 0, 2).flatten(1)
    weights = elements.weights.repeat(len(elements.x)).expand_as(x)
    loss, index = minimise_between(x, y, weights, truncation, some.low, some.high)
    row = int(loss.argmin())
    coordinate, element = divmod(int(index[row]), elements.x.shape[1])
    return Best(float(loss[row]), int(some.anchor[row]), coordinate, element)
