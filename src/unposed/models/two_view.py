"""Two-view geometry of views that nobody calibrated: the pose from point matches, one focal for a collection.

Matches are in view pixels, the principal point is the centre of the view, pixels are square.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import poselib
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Tensor

from unposed.geometry.cameras import intrinsics_matrix
from unposed.geometry.epipolar import Array, fundamental_matrix, rays, sampson, triangulate_midpoints
from unposed.geometry.essential import MINIMUM_INLIERS, TwoView, centred_camera, solve_essential
from unposed.hardware import in_parallel

THRESHOLD = 1.0
"""Inlier distance to the epipolar geometry (Sampson), in pixels of a view 640 long; scales with the view."""
FOCAL_RANGE = (0.4, 3.0)
"""Focal lengths considered, in units of the long side of the photo."""
FOCAL_SPREAD = 0.5
"""Standard deviation of the logarithm of the focal length of a photo of which nothing is known."""
VOTE_BOUND = 20.0
"""Most that one pair may speak against a focal, in units of log-likelihood."""
VOTERS = 100
"""Pairs that are asked for the focal of a collection."""
VOTE_MATCHES = 400
"""Matches of a pair that are looked at, about."""


def estimate_two_view(
    points_i: Float[Tensor, "n 2"],
    points_j: Float[Tensor, "n 2"],
    size_i: tuple[int, int],
    size_j: tuple[int, int],
    focal_i: float | None = None,
    focal_j: float | None = None,
) -> TwoView | None:
    """Relative pose from matched pixels; None where fewer than ``MINIMUM_INLIERS`` agree on one.

    Sizes are (height, width) of the views, focals are in view pixels. Focals that are not given are found first, taken
    as the same share of the long side in both views (see ``consensus_focal``).
    """
    if len(points_i) < MINIMUM_INLIERS:
        return None
    if focal_i is None or focal_j is None:
        share = consensus_focal([(points_i, points_j)], [(size_i, size_j)], [(max(size_i), max(size_j))]).share
        focal_i = share * max(size_i) if focal_i is None else focal_i
        focal_j = share * max(size_j) if focal_j is None else focal_j
    threshold = THRESHOLD * max(*size_i, *size_j) / 640
    intrinsics_i, intrinsics_j = _intrinsics(focal_i, size_i), _intrinsics(focal_j, size_j)
    return solve_essential(points_i, points_j, intrinsics_i, intrinsics_j, size_j, threshold)


@dataclass(frozen=True)
class FocalConsensus:
    """A focal length on which pairs agree."""

    share: float
    """Focal length over the unit that each view states."""
    spread: float
    """How far it may be off, relative: the larger of the standard deviation of its probability and of what the pairs'
    own favourites leave open: 1.4826 times their median deviation, over the root of the number of independent ones.
    Pairs share photos: the v pairs of a complete graph are worth its photos less one, (sqrt(1 + 8 v) - 1) / 2."""
    votes: int
    """Pairs that had a say; with 0 of them the prior is all there is."""


def consensus_focal(
    matches: Sequence[tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]],
    sizes: Sequence[tuple[tuple[int, int], tuple[int, int]]],
    units: Sequence[tuple[float, float]],
    prior: float = 1.0,
    prior_spread: float = FOCAL_SPREAD,
) -> FocalConsensus:
    """One focal length for many pairs, as a share of a unit length that each view states in its pixels.

    Every pair votes over a scan of focals with the robust epipolar cost of its best essential matrix for that focal,
    above its cheapest one and bounded, so that wrong pairs do not decide; a pair whose cost falls up to the end of the
    scan (nearly parallel motion, a plane, a rotation) does not vote. ``units`` holds, for each pair, the length in view
    pixels that stands for the long side of the photo. The prior is a normal distribution over the logarithm; EXIF gives
    a narrow one. Of many pairs the ``VOTERS`` with most matches are asked.
    """
    scan = np.log(np.geomspace(*FOCAL_RANGE, 13))
    fine = np.linspace(scan[0], scan[-1], 601)
    cost = 0.5 * ((fine - math.log(prior)) / prior_spread) ** 2
    favourites = []
    voters = sorted(range(len(matches)), key=lambda k: -len(matches[k][0]))[:VOTERS]
    for vote in in_parallel(lambda k: _focal_votes(matches[k], sizes[k], units[k], np.exp(scan)), voters):
        if vote is not None and 0 < vote.argmin() < len(scan) - 1:
            curve = CubicSpline(scan, vote)(fine)
            cost += np.minimum(curve - curve.min(), VOTE_BOUND)
            favourites.append(fine[curve.argmin()])
    if not favourites:
        return FocalConsensus(prior, prior_spread, 0)
    probability = np.exp(cost.min() - cost)
    deviation = math.sqrt(np.average((fine - np.average(fine, weights=probability)) ** 2, weights=probability))
    independent = (math.sqrt(1 + 8 * len(favourites)) - 1) / 2
    apart = 1.4826 * float(np.median(np.abs(favourites - np.median(favourites)))) / math.sqrt(independent)
    return FocalConsensus(float(np.exp(fine[cost.argmin()])), max(deviation, apart), len(favourites))


def _focal_votes(
    pair: tuple[Tensor, Tensor], size: tuple[tuple[int, int], tuple[int, int]], unit: tuple[float, float], grid: Array
) -> Array | None:
    """Negative log-likelihood of a pair's matches for every focal of the grid; None where no geometry stands out."""
    x_i, x_j = _centred(pair[0], size[0]), _centred(pair[1], size[1])
    if len(x_i) < MINIMUM_INLIERS:
        return None
    threshold = THRESHOLD * max(*size[0], *size[1]) / 640
    options = {"max_epipolar_error": threshold, "max_iterations": 5000, "min_iterations": 300}
    fundamental, info = poselib.estimate_fundamental(x_i, x_j, options, {})
    inliers = np.flatnonzero(info["inliers"])
    if len(inliers) < 2 * MINIMUM_INLIERS:
        return None
    inliers = inliers[:: math.ceil(len(inliers) / VOTE_MATCHES)]
    x_i, x_j = x_i[inliers], x_j[inliers]
    sigma = max(float(np.median(sampson(fundamental, x_i, x_j))) * 1.4826, 0.1)
    refinement = {"loss_type": "CAUCHY", "loss_scale": sigma, "max_iterations": 20}
    votes = np.full(len(grid), np.inf)
    for order in (range(len(grid)), range(len(grid) - 1, -1, -1)):
        carried: poselib.CameraPose | None = None
        for k in order:
            focal_i, focal_j = grid[k] * unit[0], grid[k] * unit[1]
            fresh = _pose_from_fundamental(fundamental, x_i, x_j, focal_i, focal_j)
            for start in [fresh] if carried is None else [fresh, carried]:
                pose, _ = poselib.refine_relative_pose(
                    x_i, x_j, start, centred_camera(focal_i), centred_camera(focal_j), refinement
                )
                error = sampson(fundamental_matrix(pose.R, pose.t, focal_i, focal_j), x_i, x_j)
                cost = float(np.log1p((error / sigma) ** 2).sum())
                if cost < votes[k]:
                    votes[k], carried = cost, pose
    return votes


def _pose_from_fundamental(
    fundamental: Array, x_i: Array, x_j: Array, focal_i: float, focal_j: float
) -> poselib.CameraPose:
    """The pose of the essential matrix nearest to ``K_j^T F K_i`` that puts most points in front of both cameras."""
    u, _, vt = np.linalg.svd(np.diag([focal_j, focal_j, 1.0]) @ fundamental @ np.diag([focal_i, focal_i, 1.0]))
    u, vt = u * np.linalg.det(u), vt * np.linalg.det(vt)
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    rays_i, rays_j = rays(x_i, focal_i), rays(x_j, focal_j)
    best, most = poselib.CameraPose(), -1
    for rotation in (u @ turn @ vt, u @ turn.T @ vt):
        for translation in (u[:, 2], -u[:, 2]):
            points, depth_j, _ = triangulate_midpoints(rays_i, rays_j, rotation, translation)
            count = int(((points[:, 2] > 0) & (depth_j > 0)).sum())
            if count > most:
                best, most = poselib.CameraPose(), count
                best.R, best.t = rotation, translation
    return best


def _intrinsics(focal: float, size: tuple[int, int]) -> Tensor:
    """K of a view of ``size`` (height, width) with its principal point in the middle."""
    return intrinsics_matrix(focal, torch.tensor([(size[1] - 1) / 2, (size[0] - 1) / 2], dtype=torch.float64))


def _centred(points: Tensor, size: tuple[int, int]) -> Array:
    """Pixels counted from the centre of a view of ``size`` (height, width)."""
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    return points.detach().cpu().numpy().astype(np.float64) - centre
