"""A start for alignment that no single bad pair can spoil: focals, then camera rotations, scales and centres by robust
averaging over ALL pairs, instead of trusting one spanning tree as DUSt3R does (section 3.4).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor

from unposed.align.sampling import Samples
from unposed.geometry.pnp import PnPResult, solve_pnp, solve_pnp_unknown_focal
from unposed.geometry.rotations import axis_angle_from_matrix, matrix_from_axis_angle, rotation_angle
from unposed.geometry.transforms import invert_rigid, rigid, transform_points

CYCLE_ANGLE = 10.0
"""Degrees; three pairs whose rotations close within about this angle support each other."""
WORST_ANGLE = 10.0
"""Degrees; a pair whose rotation disagrees more with the averaged cameras (and 5 times more than most) is dropped."""
WORST_SHIFT = 0.3
"""The same for camera centres, as a fraction of the scene's depth."""
ZOOM = 1.25
"""Views whose own focal estimate is off the median by more than this factor were zoomed, or are badly predicted."""
ZOOMED_SHARE = 0.2
"""With more of them than this the views do not share a focal."""
_PNP_POINTS = 1000
_FOCAL_ITERATIONS = 100
_PNP_ERROR = 0.01
"""Reprojection error of a pair's pose, as a fraction of the longer side."""


@dataclass(frozen=True, eq=False)
class PairPoses:
    """What every pair says of its two cameras."""

    i_from_j: Float[Tensor, "pairs 4 4"]
    inliers: Float[Tensor, "pairs"]
    """Share of the points that agree with the pose; 0 where no pose was found."""


@dataclass(frozen=True, eq=False)
class Start:
    """Initial cameras and pair frames of one component, at a scale where the pairs' geometric mean scale is 1."""

    world_from_camera: Float[Tensor, "views 4 4"]
    pair_scale: Float[Tensor, "pairs"]
    """World length of a unit of the pair's frame, which is that of camera i."""
    consistent: Bool[Tensor, "pairs"]
    """False for pairs that contradict the averaged cameras."""


def maximum_spanning_tree(pairs: Int[Tensor, "pairs 2"], scores: Float[Tensor, "pairs"], views: int) -> list[int]:
    """Rows of ``pairs`` that connect all views with the largest sum of scores, best first; scores must be positive.

    Of a pair and its reverse the better one counts.
    """
    best: dict[tuple[int, int], int] = {}
    values = scores.tolist()
    for row, (i, j) in enumerate(pairs.tolist()):
        key = (min(i, j), max(i, j))
        if key not in best or values[row] > values[best[key]]:
            best[key] = row
    keys = np.array(list(best)).reshape(-1, 2)
    cost = -np.array([values[row] for row in best.values()])
    tree = minimum_spanning_tree(coo_matrix((cost, (keys[:, 0], keys[:, 1])), shape=(views, views))).tocoo()
    rows = [best[min(i, j), max(i, j)] for i, j in zip(tree.row.tolist(), tree.col.tolist(), strict=True)]
    return sorted(rows, key=lambda row: -values[row])


def focals_agree(samples: Samples) -> bool:
    """Whether one focal can be that of all views, by what their pairs say of each."""
    valid = samples.focal.isfinite()
    first = samples.pairs[:, 0]
    views = first[valid].unique()
    if len(views) == 0:
        return True
    estimates = [valid & (first == view) for view in views]
    return one_focal_fits([_weighted_median(samples.focal[mine], samples.score[mine]) for mine in estimates])


def one_focal_fits(estimates: Sequence[float]) -> bool:
    """Whether few of the views' own focals are far from the median of all."""
    focals = torch.tensor(estimates)
    away = (focals / focals.median()).log().abs() > math.log(ZOOM)
    return float(away.float().mean()) <= ZOOMED_SHARE


def initial_focals(
    samples: Samples,
    known: Mapping[int, float],
    sizes: list[tuple[int, int]],
    centres: Float[Tensor, "views 2"],
    shared: bool,
) -> Float[Tensor, "views"]:
    """Focal of every view: known, else the median of its pairs' (weighted by score), else by PnP from its best pair.

    With ``shared``, every unknown focal is the median over all pairs.
    """
    first = samples.pairs[:, 0]
    valid = samples.focal.isfinite()
    everywhere = _weighted_median(samples.focal[valid], samples.score[valid]) if valid.any() else float("nan")
    focals = torch.zeros(len(sizes))
    for view, size in enumerate(sizes):
        mine = valid & (first == view)
        if view in known:
            focals[view] = known[view]
        elif shared and everywhere == everywhere:
            focals[view] = everywhere
        elif mine.any():
            focals[view] = _weighted_median(samples.focal[mine], samples.score[mine])
        else:
            focals[view] = _focal_by_pnp(samples, view, size, centres[view], everywhere)
    return focals


def pair_poses(samples: Samples, intrinsics: Float[Tensor, "views 3 3"], sizes: list[tuple[int, int]]) -> PairPoses:
    """Pose of camera j in camera i for every pair, by PnP of its points at the pixels of view j."""
    poses = torch.eye(4).repeat(len(samples.pairs), 1, 1)
    inliers = torch.zeros(len(samples.pairs))
    for row, (_, j) in enumerate(samples.pairs.tolist()):
        found = _pnp(samples, len(samples.pairs) + row, intrinsics[j], sizes[j])
        if found is not None:
            poses[row] = found.world_from_camera
            inliers[row] = found.inliers.float().mean()
    return PairPoses(poses, inliers)


def initialise(samples: Samples, poses: PairPoses, views: int) -> Start:
    """Cameras and pair scales of one component, averaged robustly, and which pairs they contradict."""
    i, j = samples.pairs.unbind(1)
    weight = (samples.score.log().clamp(min=1e-3) * poses.inliers).clamp(min=1e-9)
    relative = poses.i_from_j[:, :3, :3]
    support = cycle_support(samples.pairs, relative, weight, views)
    rotations = average_rotations(samples.pairs, relative, weight, weight * (support + 1e-3), views)
    drift = rotation_angle(rotations[j].mT @ rotations[i] @ relative)
    depth_scale, depth = _pair_depth_scales(samples, poses.i_from_j)
    steady = weight * (drift < torch.deg2rad(torch.tensor(WORST_ANGLE))).float().clamp(min=1e-3)
    gauge = average_potentials(samples.pairs, (depth_scale[1] - depth_scale[0])[:, None], steady, views)
    log_scale = (gauge[i, 0] + depth_scale[0] + gauge[j, 0] + depth_scale[1]) / 2
    scale = (log_scale - log_scale.mean()).exp()
    steps = scale[:, None] * (rotations[i] @ poses.i_from_j[:, :3, 3:]).squeeze(-1)
    centres = -average_potentials(samples.pairs, steps, steady, views)
    shift = (centres[j] - centres[i] - steps).norm(dim=-1) / (scale * depth)
    consistent = (poses.inliers > 0) & _not_outlying(drift.rad2deg(), WORST_ANGLE) & _not_outlying(shift, WORST_SHIFT)
    return Start(rigid(rotations, centres), scale, consistent)


def cycle_support(
    pairs: Int[Tensor, "pairs 2"], relative: Float[Tensor, "pairs 3 3"], weight: Float[Tensor, "pairs"], views: int
) -> Float[Tensor, "pairs"]:
    """How well a pair's rotation agrees with all two-step detours, 0 to 1; 1 where there is no detour.

    The mean over detours of ``exp(-(angle / CYCLE_ANGLE)^2)``, each counted by the product of its pairs' weights.
    """
    i, j = pairs.unbind(1)
    table, known = torch.eye(3).repeat(views, views, 1, 1), torch.zeros(views, views)
    order = weight.argsort()
    for row in order.tolist():  # the better of a pair and its reverse is written last, in both directions
        table[i[row], j[row]], table[j[row], i[row]] = relative[row], relative[row].T
        known[i[row], j[row]] = known[j[row], i[row]] = weight[row]
    support = torch.ones(len(pairs))
    for row, (a, b) in enumerate(pairs.tolist()):
        certainty = known[a] * known[:, b]
        certainty[[a, b]] = 0
        if certainty.sum() > 0:
            detour = table[a] @ table[:, b]
            angle = rotation_angle(relative[row].T @ detour).rad2deg()
            support[row] = (certainty * (-((angle / CYCLE_ANGLE) ** 2)).exp()).sum() / certainty.sum()
    return support


def average_rotations(
    pairs: Int[Tensor, "pairs 2"],
    relative: Float[Tensor, "pairs 3 3"],
    weight: Float[Tensor, "pairs"],
    tree_score: Float[Tensor, "pairs"],
    views: int,
    iterations: int = 30,
) -> Float[Tensor, "views 3 3"]:
    """Rotations R with ``R_j = R_i relative_ij`` as nearly as possible, robustly; R of view 0 is the identity.

    Start: maximum spanning tree of ``tree_score``; then iteratively reweighted least squares in the tangent space with
    Geman-McClure weights, whose width narrows to ``CYCLE_ANGLE``, so that the pairs of the tree lose their privilege.
    """
    i, j = pairs.unbind(1)
    rotations = _rotations_of_tree(pairs, relative, maximum_spanning_tree(pairs, tree_score, views), views)
    for iteration in range(iterations):
        error = axis_angle_from_matrix(rotations[i] @ relative @ rotations[j].mT)
        width = math.radians(CYCLE_ANGLE) * max(1.0, 4 * (1 - iteration / 5))
        step = _solve_potentials(pairs, -error, weight * _geman_mcclure(error.norm(dim=-1), width), views)
        rotations = matrix_from_axis_angle(step) @ rotations
        if iteration >= 5 and step.abs().max() < 1e-6:
            break
    return rotations[0].T @ rotations


def average_potentials(
    pairs: Int[Tensor, "pairs 2"],
    differences: Float[Tensor, "pairs channels"],
    weight: Float[Tensor, "pairs"],
    views: int,
    iterations: int = 30,
) -> Float[Tensor, "views channels"]:
    """Values x of every view (0 for view 0) with ``x_i - x_j = difference_ij`` as nearly as possible, robustly.

    Iteratively reweighted least squares with Geman-McClure weights, three times as wide as the median error.
    """
    i, j = pairs.unbind(1)
    values = _solve_potentials(pairs, differences, weight, views)
    least = 1e-4 * float(differences.norm(dim=-1).median()) + 1e-9
    for _ in range(iterations):
        error = (values[i] - values[j] - differences).norm(dim=-1)
        width = max(3 * float(error.median()), least)
        values = _solve_potentials(pairs, differences, weight * _geman_mcclure(error, width), views)
    return values


def _geman_mcclure(error: Float[Tensor, "pairs"], width: float) -> Float[Tensor, "pairs"]:
    """Weight of an error in a robust average: 1 at zero, a quarter at the width, next to nothing far beyond."""
    return (1 + (error / width).square()) ** -2


def _solve_potentials(
    pairs: Int[Tensor, "pairs 2"],
    differences: Float[Tensor, "pairs channels"],
    weight: Float[Tensor, "pairs"],
    views: int,
) -> Float[Tensor, "views channels"]:
    """Weighted least squares of ``x_i - x_j = difference`` with x_0 = 0: one graph Laplacian, in float64."""
    i, j = pairs.unbind(1)
    w = (weight / weight.max()).double()
    laplacian = torch.zeros(views, views, dtype=torch.float64)
    laplacian.index_put_((i, i), w, accumulate=True)
    laplacian.index_put_((j, j), w, accumulate=True)
    laplacian.index_put_((i, j), -w, accumulate=True)
    laplacian.index_put_((j, i), -w, accumulate=True)
    pull = w[:, None] * differences.double()
    right = torch.zeros(views, differences.shape[1], dtype=torch.float64)
    right.index_add_(0, i, pull).index_add_(0, j, -pull)
    laplacian[1:, 1:].diagonal().add_(1e-12)
    values = torch.zeros_like(right)
    values[1:] = torch.linalg.solve(laplacian[1:, 1:], right[1:])
    return values.to(differences.dtype)


def _rotations_of_tree(
    pairs: Int[Tensor, "pairs 2"], relative: Float[Tensor, "pairs 3 3"], tree: list[int], views: int
) -> Float[Tensor, "views 3 3"]:
    rotations, placed, waiting = torch.eye(3).repeat(views, 1, 1), {0}, list(tree)
    while waiting:
        later = []
        for row in waiting:
            i, j = pairs[row].tolist()
            if i in placed:
                rotations[j] = rotations[i] @ relative[row]
            elif j in placed:
                rotations[i] = rotations[j] @ relative[row].T
            else:
                later.append(row)
                continue
            placed |= {i, j}
        waiting = later
    return rotations


def _pair_depth_scales(
    samples: Samples, i_from_j: Float[Tensor, "pairs 4 4"], iterations: int = 10
) -> tuple[Float[Tensor, "2 pairs"], Float[Tensor, "pairs"]]:
    """Log factor that brings the depths of every map to a common depth map of its view, and median depths of pairs.

    Alternates, robustly, between the common log depth of every sampled pixel and the factor of every map; each view's
    factors are relative to an unknown constant of that view.
    """
    half, view = len(samples.pairs), samples.view_of_map
    z_j = transform_points(invert_rigid(i_from_j), samples.points[half:])[..., 2]
    z = torch.cat([samples.points[:half, :, 2], z_j])
    weight = samples.weight * (z > 0)
    log_z = z.clamp(min=1e-9).log()
    factor = -(weight * log_z).sum(1) / weight.sum(1).clamp(min=1e-20)
    robust, views = weight, len(samples.pixels)
    for _ in range(iterations):
        shape = (views, log_z.shape[1])
        total = torch.zeros(shape).index_add_(0, view, robust)
        common = torch.zeros(shape).index_add_(0, view, robust * (log_z + factor[:, None])) / total.clamp(min=1e-20)
        error = common[view] - log_z
        factor = (robust * error).sum(1) / robust.sum(1).clamp(min=1e-20)
        robust = weight / (error - factor[:, None]).abs().clamp(min=0.02)
    typical = (weight[:half] * log_z[:half]).sum(1) / weight[:half].sum(1).clamp(min=1e-20)
    return factor.reshape(2, half), typical.exp()


def _not_outlying(error: Float[Tensor, "pairs"], limit: float) -> Bool[Tensor, "pairs"]:
    """Below the limit, or not much worse than most."""
    return error <= max(limit, 5 * float(error.median()))


def _pnp(
    samples: Samples,
    row: int,
    intrinsics: Float[Tensor, "3 3"] | None,
    size: tuple[int, int],
    centre: Float[Tensor, "2"] | None = None,
) -> PnPResult | None:
    """Camera whose pixels map ``row`` gives points for, in the frame of the map."""
    chosen = samples.certain[row].nonzero()[:, 0]
    chosen = chosen[:: max(1, len(chosen) // _PNP_POINTS)]
    pixels, points = samples.pixels[samples.view_of_map[row], chosen], samples.points[row, chosen]
    error = _PNP_ERROR * max(size)
    if intrinsics is not None:
        return solve_pnp(pixels, points, intrinsics, error)
    assert centre is not None
    return solve_pnp_unknown_focal(pixels, points, centre, size, error, _FOCAL_ITERATIONS)


def _focal_by_pnp(
    samples: Samples, view: int, size: tuple[int, int], centre: Float[Tensor, "2"], fallback: float
) -> float:
    seconds = (samples.pairs[:, 1] == view).nonzero()[:, 0]
    if len(seconds):
        row = int(seconds[samples.score[seconds].argmax()])
        found = _pnp(samples, len(samples.pairs) + row, None, size, centre)
        if found is not None:
            return float(found.intrinsics[0, 0])
    return fallback if fallback == fallback else float(max(size))


def _weighted_median(values: Float[Tensor, "n"], weights: Float[Tensor, "n"]) -> float:
    order = values.argsort()
    cumulative = weights[order].cumsum(0)
    return float(values[order[torch.searchsorted(cumulative, cumulative[-1:] / 2)[0]]])
