"""Dense depth of posed views: plane sweep with zero-mean normalised correlation and semi-global aggregation.

Sources: Collins, "A space-sweep approach to true multi-image matching", CVPR 1996; Hirschmueller, "Stereo processing by
semiglobal matching", PAMI 2008. Runs at a reduced resolution, in 16-bit integers where the work is; the depth map that
comes out is complete, its support says where to believe it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

LONG_SIDE = 256
"""Long side in pixels of the images that are swept."""
PLANES = (32, 128)
"""Fewest and most planes; between them, as many as make a step of one pixel."""
WINDOW = (7, 7)
"""Correlation window in swept pixels."""
NOISE = 3.0
"""Grey-level noise that keeps flat windows from correlating."""
UNIT = 1000
"""Integer cost of a correlation of -1; a correlation of 1 costs 0."""
SMALL_STEP, LARGE_STEP = np.int16(0.03 * UNIT), np.int16(0.25 * UNIT)
"""Penalties of semi-global matching for a step of one plane and for a jump."""
MINIMUM_CORRELATION = 0.4
"""Support is the correlation above this, as a share of what is left to 1."""
RANGE_MARGIN = (0.6, 1.3)
"""The sweep reaches beyond the inverse depths of the triangulated points by these factors."""
FULL_WEIGHT = 0.05
"""Mean support of an area from which on its own depths fill it, not those of its surroundings."""

Matrix = NDArray[np.float64]
Image = NDArray[np.float32]
Costs = NDArray[np.int16]
"""(planes, height, width), or with the dimensions in another order."""


@dataclass(frozen=True, eq=False)
class SweptDepth:
    """Depth of one view of a pair, at the size of the view, in units of the baseline."""

    depth: Float[Tensor, "height width"]
    """z-depth; positive and finite everywhere, interpolated where nothing supports it."""
    support: Float[Tensor, "height width"]
    """0 where the depth is a guess, up to 1 where the images correlate and both sweeps agree."""


@dataclass(frozen=True, eq=False)
class Side:
    """One view, reduced for the sweep."""

    grey: Image
    colours: NDArray[np.uint8]
    intrinsics: Matrix
    size: tuple[int, int]
    """(height, width) of the view."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """Result of sweeping one side, at sweep resolution; planes are ``step`` apart in inverse depth."""

    inverse_depth: Image
    correlation: Image
    step: float


def sweep_both(
    image_i: UInt8[Tensor, "height_i width_i 3"],
    image_j: UInt8[Tensor, "height_j width_j 3"],
    focal_i: float,
    focal_j: float,
    j_from_i: Float[Tensor, "4 4"],
    points: Float[Tensor, "n 3"],
) -> tuple[SweptDepth, SweptDepth]:
    """Depth of both views of a pair, each swept against the other.

    Args:
        image_i: First view, RGB.
        image_j: Second view, RGB.
        focal_i: Focal length of view i in its pixels; the principal point is the centre.
        focal_j: Focal length of view j.
        j_from_i: Rigid transform between the cameras; depths come out in its unit of length.
        points: Triangulated points in the frame of camera i; their depths set the range of the sweeps.
    """
    pose, cloud = j_from_i.double().numpy(), points.double().numpy()
    back = np.linalg.inv(pose)
    side_i, side_j = reduced(image_i, _centred(image_i, focal_i)), reduced(image_j, _centred(image_j, focal_j))
    swept_i = sweep(side_i, [(side_j, pose)], cloud[:, 2])
    swept_j = sweep(side_j, [(side_i, back)], cloud @ pose[2, :3] + pose[2, 3])
    agrees_i, _ = agreement(swept_i, side_i, swept_j, side_j, pose)
    agrees_j, _ = agreement(swept_j, side_j, swept_i, side_i, back)
    return _filled(swept_i, agrees_i, side_i), _filled(swept_j, agrees_j, side_j)


def _filled(swept: Sweep, agrees: NDArray[np.bool_], side: Side) -> SweptDepth:
    """The sweep where the other view's agrees, from around it elsewhere."""
    support = np.where(agrees, certainty(swept), 0).astype(np.float32)
    return finished(_fill(swept.inverse_depth, support), support, swept.step, side)


def _centred(image: UInt8[Tensor, "height width 3"], focal: float) -> Matrix:
    height, width = image.shape[:2]
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def reduced(image: UInt8[Tensor, "height width 3"], intrinsics: Matrix) -> Side:
    """A view at the size of the sweep; ``intrinsics`` are in its own pixels."""
    height, width = image.shape[:2]
    scale = max(height, width) / LONG_SIDE
    h, w = round(height / scale), round(width / scale)
    small = cv2.resize(image.numpy(), (w, h), interpolation=cv2.INTER_AREA)
    x, y = w / width, h / height
    small_from_view = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return Side(grey, small, small_from_view @ intrinsics, (height, width))


def _points_from_pixels(intrinsics: Matrix) -> Matrix:
    """4x4 map from (x, y, 1, inverse depth) to a homogeneous point of the camera frame."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.linalg.inv(intrinsics)
    return matrix


def sweep(reference: Side, sources: Sequence[tuple[Side, Matrix]], depths: Matrix) -> Sweep:
    """Inverse depth of the reference by sweeping planes parallel to its image, about a pixel apart in the sources.

    ``sources`` are other views with their ``source_from_reference``. A pixel costs on each plane what its best source
    says: what one source does not see another may, and a wrong plane rarely looks right from anywhere. ``depths`` are
    known ones that set the range.
    """
    low, high = np.quantile(1 / depths[depths > 0], (0.02, 0.98)) * RANGE_MARGIN
    travel = (high - low) * max(side.intrinsics[0, 0] * np.linalg.norm(pose[:3, 3]) for side, pose in sources)
    count = int(np.clip(math.ceil(travel), *PLANES))
    planes = np.linspace(low, high, count)
    cost = _costs(reference, *sources[0], planes)
    for source, pose in sources[1:]:
        np.minimum(cost, _costs(reference, source, pose, planes), out=cost)
    total = _aggregate(cost)
    index = total.argmin(0)[None]
    position = _between_planes(total, index)
    correlation = 1 - 2 * np.take_along_axis(cost, index, 0)[0] / np.float32(UNIT)
    correlation[(index[0] == 0) | (index[0] == count - 1)] = -1  # the true depth may lie beyond the range
    step = float(planes[1] - planes[0])
    return Sweep((planes[0] + step * position).astype(np.float32), correlation, step)


def _costs(reference: Side, source: Side, source_from_reference: Matrix, planes: Matrix) -> Costs:
    """Cost of each pixel of the reference on each plane: (1 - correlation) / 2 in ``UNIT``, half of it if unseen."""
    image, other = reference.grey, source.grey
    h, w = image.shape
    rays_from_pixels = np.linalg.inv(reference.intrinsics)
    mean_a = cv2.blur(image, WINDOW)
    variance_a = cv2.blur(image * image, WINDOW) - mean_a * mean_a + np.float32(NOISE**2)
    costs = np.empty((len(planes), h, w), np.int16)
    for cost, inverse_depth in zip(costs, planes, strict=True):
        moved = source_from_reference[:3, :3].copy()
        moved[:, 2] += inverse_depth * source_from_reference[:3, 3]
        homography = source.intrinsics @ moved @ rays_from_pixels
        warped = cv2.warpPerspective(
            other, homography, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=-1e4
        )
        seen = (warped >= 0) & _in_front(homography, h, w)
        np.maximum(warped, 0, out=warped)
        mean_b = cv2.blur(warped, WINDOW)
        variance_b = cv2.blur(warped * warped, WINDOW) - mean_b * mean_b + np.float32(NOISE**2)
        correlation = (cv2.blur(image * warped, WINDOW) - mean_a * mean_b) / np.sqrt(variance_a * variance_b)
        cost[:] = (UNIT / 2) * (1 - correlation * seen)
    return costs


def _in_front(homography: Matrix, h: int, w: int) -> NDArray[np.bool_] | bool:
    """Which pixels the homography of a plane does not take through infinity."""
    row = homography[2]
    if min(row @ (x, y, 1) for x in (0, w) for y in (0, h)) > 0:
        return True
    return (row[0] * np.arange(w) + row[1] * np.arange(h)[:, None] + row[2]) > 0


def _aggregate(cost: Costs) -> Costs:
    """Sum of semi-global path costs from left, right, top and bottom."""
    total = np.zeros_like(cost)
    for steps_first in ((2, 0, 1), (1, 0, 2)):
        lines, sums = cost.transpose(steps_first), total.transpose(steps_first)
        paths = np.empty(lines.shape, np.int16)
        for way in (1, -1):
            np.copyto(paths, lines[::way])
            _accumulate(paths)
            sums += paths[::way]
    return total


def _accumulate(paths: Costs) -> None:
    """Turn costs (steps, planes, lines) into path costs along the steps, in place (Hirschmueller 2008, equation 13)."""
    stepped, best = np.empty_like(paths[0]), np.empty_like(paths[0])
    for before, here in pairwise(paths):
        cheapest = before.min(0)
        np.add(before, SMALL_STEP, out=stepped)
        np.minimum(before, cheapest + LARGE_STEP, out=best)
        np.minimum(best[1:], stepped[:-1], out=best[1:])
        np.minimum(best[:-1], stepped[1:], out=best[:-1])
        best -= cheapest
        here += best


def _between_planes(cost: Costs, index: NDArray[np.int64]) -> Matrix:
    """Plane index with the fraction at which a parabola through the three costs around the best has its minimum."""
    inner = index.clip(1, len(cost) - 2)
    left, middle, right = (np.take_along_axis(cost, inner + k, 0)[0].astype(np.float64) for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    return inner[0] + (0.5 * (left - right) / np.maximum(bend, 1)).clip(-1, 1)


def agreement(
    one: Sweep, side: Side, other: Sweep, other_side: Side, other_from_one: Matrix
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where the other sweep has the same point, and where the point lies in its image at all."""
    h, w = one.inverse_depth.shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    pixels_from_points = other_side.intrinsics @ other_from_one[:3] @ _points_from_pixels(side.intrinsics)
    u, v, z = np.tensordot(pixels_from_points, np.stack([x, y, np.ones_like(x), one.inverse_depth]), 1)
    z = np.maximum(z / one.inverse_depth, 1e-9)
    u, v = (np.float32(c / one.inverse_depth / z) for c in (u, v))
    there = cv2.remap(other.inverse_depth, u, v, cv2.INTER_NEAREST, borderValue=-1e9)
    return np.abs(there - 1 / z) < 1.5 * max(one.step, other.step), there > 0


def certainty(swept: Sweep) -> Image:
    """How well each pixel looks the same in the other views, from 0 to 1."""
    return ((swept.correlation - MINIMUM_CORRELATION) / (1 - MINIMUM_CORRELATION)).clip(0, 1)


def finished(inverse: Image, support: Image, step: float, side: Side) -> SweptDepth:
    """Complete inverse depth and its support at the size of the view; edges of surfaces are not believed."""
    window = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(inverse, window) - cv2.erode(inverse, window)
    support = (support * (spread < np.maximum(4 * step, 0.2 * inverse))).astype(np.float32)
    size = side.size[1], side.size[0]
    inverse, support = (cv2.resize(x, size, interpolation=cv2.INTER_LINEAR) for x in (inverse, support))
    return SweptDepth(torch.from_numpy(1 / inverse), torch.from_numpy(support))


def _fill(values: Image, weights: Image) -> Image:
    """Values where weights are positive; elsewhere a smooth interpolation (pull-push over a pyramid)."""
    if not weights.any():
        return np.full_like(values, np.median(values))
    levels = [(values * weights, weights)]
    while min(levels[-1][0].shape) > 1:
        size = tuple((side + 1) // 2 for side in reversed(levels[-1][0].shape))
        levels.append(tuple(cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in levels[-1]))
    filled = np.full_like(levels[-1][0], np.average(values, weights=weights))
    for value, weight in reversed(levels):
        coarse = cv2.resize(filled, value.shape[::-1], interpolation=cv2.INTER_LINEAR)
        share = (weight / FULL_WEIGHT).clip(max=1)
        filled = share * value / np.maximum(weight, 1e-9) + (1 - share) * coarse
    return filled
