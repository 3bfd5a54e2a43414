"""Dense depth of refined views: every view swept against its best neighbours, completed by what a model expects.

A pixel is believed where its neighbours' own sweeps put the same point. All others are a completion: the expected
log-depth, fitted to what is believed, plus what believed pixels differ from it, spread as far as the image is smooth.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu
from torch import Tensor

from unposed.geometry.transforms import transform_points
from unposed.models.classic import strength
from unposed.models.plane_sweep import Image, Matrix, Side, Sweep, agreement, certainty, finished, reduced, sweep
from unposed.views import Camera, Tracks, View

NEIGHBOURS = 4
"""A view is swept against at most so many others."""
WITNESSES = 2
"""So many neighbours must agree to a pixel, or all whose image it falls into, if they are fewer."""
GOOD_ANGLE, ANGLE_SPREAD = 5.0, 20.0
"""Degrees between the rays of two views to a point: narrower ones tell less, much wider ones look too different."""
FEWEST_POINTS = 8
"""Common points without which two views are no neighbours."""
SMOOTHNESS = 0.1
"""How much a step between neighbouring pixels of one colour costs, against a believed pixel."""
COLOUR_STEP = 8.0
"""Grey levels at which a step costs e times less: depth may jump where colour does."""
PULL = 3e-5
"""Pull towards the expected depth: far from believed pixels, some 60 swept ones, nothing else counts."""
STEEPEST = 1.5
"""Largest factor on the expected log-depth; the smallest is 0, a flat expectation."""
_ROUNDS = 10
_CLOSE = 0.02
"""Differences of log-depth below which the robust fit is quadratic."""

Values = NDArray[np.float64]
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Neighbour:
    """Another view that sees the same points."""

    view: int
    strength: float
    """What full support from it adds to the confidence."""


def multiview_depth(
    views: Sequence[View],
    cameras: Sequence[Camera],
    tracks: Tracks,
    expected_depth: Callable[[View], Float[Tensor, "rows columns"]],
) -> list[tuple[Float[Tensor, "height width"], Float[Tensor, "height width"]] | None]:
    """Depth (z, positive everywhere) and confidence of every view, in the units of the cameras.

    Confidence is 1 where the depth is a completion, above where neighbours confirm it.

    Args:
        views: What the sweep looks at.
        cameras: For the pixels of the views.
        tracks: Points that the views see; they choose neighbours and set the range of depths.
        expected_depth: Log-depth of a view up to a constant, at any resolution.

    Returns:
        None for views that share hardly any points with another one.
    """
    centres = torch.stack([camera.centre for camera in cameras]).double()
    sides = [
        reduced(view.image, camera.intrinsics.double().numpy()) for view, camera in zip(views, cameras, strict=True)
    ]
    around = [neighbours(tracks, centres, k) for k in range(len(views))]

    def pose(k: int, other: int) -> Matrix:
        return (cameras[other].camera_from_world.double() @ cameras[k].world_from_camera.double()).numpy()

    def swept(k: int) -> Sweep | None:
        if not around[k]:
            return None
        points = tracks.points[tracks.track[tracks.view == k]]
        depths = transform_points(cameras[k].camera_from_world, points)[:, 2].double().numpy()
        return sweep(sides[k], [(sides[n.view], pose(k, n.view)) for n in around[k]], depths)

    sweeps = _in_parallel(swept, range(len(views)))

    def solved(k: int) -> tuple[Tensor, Tensor] | None:
        one = sweeps[k]
        if one is None:
            return None
        others = [(sweeps[n.view], sides[n.view], pose(k, n.view)) for n in around[k]]
        support = _support(one, sides[k], [(other, side, there) for other, side, there in others if other is not None])
        log_depth = completed(-np.log(one.inverse_depth), support, sides[k].colours, expected_depth(views[k]))
        result = finished(np.exp(-log_depth).astype(np.float32), support, one.step, sides[k])
        return result.depth, 1 + max(n.strength for n in around[k]) * result.support

    return _in_parallel(solved, range(len(views)))


def neighbours(tracks: Tracks, centres: Float[Tensor, "views 3"], k: int) -> list[Neighbour]:
    """The views to sweep view ``k`` against, best first: those with many common points seen under good angles."""
    seen = torch.zeros(len(tracks.points), dtype=torch.bool)
    seen[tracks.track[tracks.view == k]] = True
    common = seen[tracks.track] & (tracks.view != k)
    view, points = tracks.view[common], tracks.points[tracks.track[common]].double()
    rays = [F.normalize(points - centre, dim=-1) for centre in (centres[k], centres[view])]
    angle = torch.linalg.cross(*rays).norm(dim=-1).atan2((rays[0] * rays[1]).sum(-1))
    degrees = angle.rad2deg()
    worth = (degrees / GOOD_ANGLE).clamp(max=1) * (-((degrees - GOOD_ANGLE).clamp(min=0) / ANGLE_SPREAD).square()).exp()
    total = torch.bincount(view, worth, len(centres))
    total[torch.bincount(view, minlength=len(centres)) < FEWEST_POINTS] = 0
    best = total.argsort(descending=True)[:NEIGHBOURS]
    found = [(int(n), angle[view == n]) for n in best if total[n] > 0]
    return [Neighbour(n, strength(len(angles), float(angles.median()))) for n, angles in found]


def _support(one: Sweep, side: Side, others: Sequence[tuple[Sweep, Side, Matrix]]) -> Image:
    """How far to believe each pixel: its certainty where enough neighbours have the same point, else 0."""
    judged = [agreement(one, side, *other) for other in others]
    agree, inside = (np.sum([verdict[k] for verdict in judged], axis=0) for k in (0, 1))
    return np.where(agree >= np.clip(inside, 1, WITNESSES), certainty(one), 0).astype(np.float32)


def completed(
    log_depth: Image, support: Image, colours: NDArray[np.uint8], expected: Float[Tensor, "rows columns"]
) -> Values:
    """Log-depth that keeps supported pixels and follows the expected one elsewhere, without steps inside a colour.

    Weighted least squares on the difference to the expected depth (Farbman et al., "Edge-preserving decompositions",
    SIGGRAPH 2008, equation 1), after the robust affine fit of that depth to the supported pixels.
    """
    scaled = F.interpolate(expected[None, None].double(), size=support.shape, mode="bilinear", align_corners=False)
    guess = _fitted(scaled[0, 0].numpy(), log_depth.astype(np.float64), support.astype(np.float64))
    return guess + _smooth(log_depth - guess, support, colours.astype(np.float64))


def _fitted(expected: Values, log_depth: Values, support: Values) -> Values:
    """``a * expected + b`` of least absolute difference where there is support, by reweighted least squares."""
    support = support + 1e-12  # without any support, all pixels count the same
    weight, slope, offset = support, 1.0, 0.0
    for _ in range(_ROUNDS):
        mean_x, mean_y = np.average(expected, weights=weight), np.average(log_depth, weights=weight)
        x = expected - mean_x
        slope = float(
            np.clip((weight * x * (log_depth - mean_y)).sum() / max((weight * x * x).sum(), 1e-9), 0, STEEPEST)
        )
        offset = mean_y - slope * mean_x
        weight = support / np.maximum(np.abs(log_depth - slope * expected - offset), _CLOSE)
    return slope * expected + offset


def _smooth(values: Values, weight: Image, colours: Values) -> Values:
    """Solve ``min sum w (x - v)^2 + PULL x^2 + SMOOTHNESS sum e^(-colour step) (x_i - x_j)^2``."""
    number = np.arange(values.size).reshape(values.shape)
    links = []
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        step = np.abs(colours[a] - colours[b]).max(-1)
        links.append((number[a].ravel(), number[b].ravel(), SMOOTHNESS * (np.exp(-step / COLOUR_STEP) + 1e-3).ravel()))
    i, j, link = (np.concatenate(parts) for parts in zip(*links, strict=True))
    flat = weight.ravel().astype(np.float64)
    diagonal = flat + PULL + np.bincount(i, link, values.size) + np.bincount(j, link, values.size)
    all_pixels = number.ravel()
    entries = np.concatenate([diagonal, -link, -link])
    places = np.concatenate([all_pixels, i, j]), np.concatenate([all_pixels, j, i])
    matrix = coo_array((entries, places), shape=(values.size, values.size)).tocsc()
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return factors.solve(flat * values.ravel()).reshape(values.shape)


def _in_parallel(function: Callable[[int], _T], items: Sequence[int]) -> list[_T]:
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(function, items))
