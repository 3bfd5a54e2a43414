"""Two-view geometry from point matches: LO-RANSAC pose, degeneracy checks, triangulation, one focal for a collection.

Matches are in view pixels, the principal point is the centre of the view, pixels are square. Solvers: PoseLib (Larsson
et al.). Significance of a geometry: Moisan and Stival, IJCV 2004 (a-contrario RANSAC).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import poselib
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import gammaln
from torch import Tensor

Array = NDArray[np.float64]

THRESHOLD = 1.0
"""Inlier distance to the epipolar geometry (Sampson), in pixels of a view 640 long; scales with the view."""
MINIMUM_INLIERS = 15
ROTATION_SHARE = 0.8
"""Two views are called a pure rotation when one rotation explains this share of the epipolar inliers."""
PLANAR_SHARE = 0.85
"""The poses of a homography are tried as well when it explains this share of the inliers."""
NOISE_FLOOR = 0.3
"""Smallest standard deviation, in pixels, that a match is believed to have."""
RIVAL_MARGIN = 10.0
"""A second pose is a rival when it is less than this many units of log-likelihood worse."""
SIGNIFICANCE = 8.0
"""A geometry below this may be chance, see ``TwoView.significance``."""
SMALLEST_ANGLE = math.radians(0.5)
"""Median angle under which the points of a pair must see the two cameras."""
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


@dataclass(frozen=True, eq=False)
class TwoView:
    """Relative pose of two views with what supports it. Lengths are in units of the baseline."""

    j_from_i: Float[Tensor, "4 4"]
    """Rigid transform (float64) from camera i to camera j; the translation has length 1."""
    focal_i: float
    """Focal length in pixels of view i that the pose was estimated with."""
    focal_j: float
    inliers: Bool[Tensor, "n"]
    """Which of the given matches obey the geometry and lie in front of both cameras."""
    points: Float[Tensor, "inliers 3"]
    """Triangulated inliers in the frame of camera i."""
    angles: Float[Tensor, "inliers"]
    """Angle in radians under which each point sees the two camera centres."""
    significance: float
    """-log10 of the number of geometries as good as this one expected by chance; below about 5 means nothing."""
    rotation_only: bool
    """One rotation explains the matches: the translation and the points mean little."""
    ambiguous: bool
    """The matches lie on one plane and a second pose explains them as well."""

    @property
    def reliable(self) -> bool:
        """Whether rotation and translation may be trusted by a reconstruction."""
        return (
            not self.rotation_only
            and not self.ambiguous
            and self.significance > SIGNIFICANCE
            and len(self.points) >= MINIMUM_INLIERS
            and float(self.angles.median()) > SMALLEST_ANGLE
        )


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
        share = consensus_focal([(points_i, points_j)], [(size_i, size_j)], [(max(size_i), max(size_j))])
        focal_i = share * max(size_i) if focal_i is None else focal_i
        focal_j = share * max(size_j) if focal_j is None else focal_j
    x_i, x_j = _centred(points_i, size_i), _centred(points_j, size_j)
    threshold = THRESHOLD * max(*size_i, *size_j) / 640
    options = {"max_epipolar_error": threshold, "max_iterations": 10000, "min_iterations": 500}
    pose, info = poselib.estimate_relative_pose(x_i, x_j, _camera(focal_i), _camera(focal_j), options, {})
    if sum(info["inliers"]) < MINIMUM_INLIERS:
        return None
    best = _support(pose, x_i, x_j, focal_i, focal_j, threshold)
    rivals = [
        _support(pose, x_i, x_j, focal_i, focal_j, threshold) for pose in _planar_poses(x_i, x_j, best, threshold)
    ]
    noise = max(float(np.median(best.error[best.inliers])) * 1.4826, NOISE_FLOOR) if best.inliers.any() else threshold
    best = min([best, *rivals], key=lambda candidate: _misfit(candidate, noise))
    count = int(best.inliers.sum())
    if count < MINIMUM_INLIERS:
        return None
    rays_i, rays_j = _rays(x_i[best.inliers], focal_i), _rays(x_j[best.inliers], focal_j)
    chance = 2 * threshold * math.hypot(*size_j) / (size_j[0] * size_j[1])
    j_from_i = torch.eye(4, dtype=torch.float64)
    j_from_i[:3, :3], j_from_i[:3, 3] = torch.from_numpy(best.rotation), torch.from_numpy(best.translation)
    return TwoView(
        j_from_i=j_from_i,
        focal_i=focal_i,
        focal_j=focal_j,
        inliers=torch.from_numpy(best.inliers),
        points=torch.from_numpy(best.points[best.inliers]),
        angles=torch.from_numpy(best.angles[best.inliers]),
        significance=_significance(len(x_i), count, chance),
        rotation_only=bool(np.mean(_rotation_residual(rays_i, rays_j, focal_j) < 1.5 * threshold) > ROTATION_SHARE),
        ambiguous=any(
            _differs(best, rival) and _misfit(rival, noise) < _misfit(best, noise) + RIVAL_MARGIN for rival in rivals
        ),
    )


@dataclass(frozen=True, eq=False)
class _Support:
    """A calibrated pose with every match triangulated by it."""

    rotation: Array
    translation: Array
    focal_i: float
    focal_j: float
    error: Array
    inliers: NDArray[np.bool_]
    points: Array
    angles: Array


def _support(
    pose: poselib.CameraPose, x_i: Array, x_j: Array, focal_i: float, focal_j: float, threshold: float
) -> _Support:
    rotation, translation = np.array(pose.R), np.array(pose.t)
    translation = translation / max(float(np.linalg.norm(translation)), 1e-12)
    error = _sampson(_fundamental(rotation, translation, focal_i, focal_j), x_i, x_j)
    points, depth_j, angles = _triangulate(_rays(x_i, focal_i), _rays(x_j, focal_j), rotation, translation)
    inliers = (error < threshold) & (points[:, 2] > 0) & (depth_j > 0)
    return _Support(rotation, translation, focal_i, focal_j, error, inliers, points, angles)


def _misfit(support: _Support, noise: float) -> float:
    """Negative log-likelihood of the matches: squared errors in units of the noise, bounded at three times it."""
    error = np.where(support.inliers, support.error / noise, np.inf)
    return float(0.5 * np.minimum(error * error, 9.0).sum())


def _planar_poses(x_i: Array, x_j: Array, best: _Support, threshold: float) -> list[poselib.CameraPose]:
    """Poses that a homography allows, refined on its inliers, where one explains most of the inliers; else none."""
    x_i, x_j = x_i[best.inliers], x_j[best.inliers]
    if len(x_i) < MINIMUM_INLIERS:
        return []
    options = {"max_reproj_error": 2 * threshold, "max_iterations": 1000, "min_iterations": 100}
    homography, info = poselib.estimate_homography(x_i, x_j, options, {})
    if sum(info["inliers"]) < PLANAR_SHARE * len(x_i):
        return []
    scale_i, scale_j = np.diag([best.focal_i, best.focal_i, 1.0]), np.diag([1 / best.focal_j, 1 / best.focal_j, 1.0])
    poses, _ = poselib.motion_from_homography(scale_j @ homography @ scale_i)
    refinement = {"loss_type": "CAUCHY", "loss_scale": threshold / 2, "max_iterations": 50}
    cameras = _camera(best.focal_i), _camera(best.focal_j)
    return [poselib.refine_relative_pose(x_i, x_j, pose, *cameras, refinement)[0] for pose in poses]


def _differs(a: _Support, b: _Support) -> bool:
    """Whether two poses are further apart than noise explains: 3 degrees of rotation or 15 of translation."""
    turn = (np.trace(a.rotation.T @ b.rotation) - 1) / 2
    return bool(turn < math.cos(math.radians(3)) or a.translation @ b.translation < math.cos(math.radians(15)))


def consensus_focal(
    matches: Sequence[tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]],
    sizes: Sequence[tuple[tuple[int, int], tuple[int, int]]],
    units: Sequence[tuple[float, float]],
    prior: float = 1.0,
    prior_spread: float = FOCAL_SPREAD,
) -> float:
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
    for index in sorted(range(len(matches)), key=lambda k: -len(matches[k][0]))[:VOTERS]:
        vote = _focal_votes(matches[index], sizes[index], units[index], np.exp(scan))
        if vote is not None and 0 < vote.argmin() < len(scan) - 1:
            curve = CubicSpline(scan, vote)(fine)
            cost += np.minimum(curve - curve.min(), VOTE_BOUND)
    return float(np.exp(fine[cost.argmin()]))


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
    sigma = max(float(np.median(_sampson(fundamental, x_i, x_j))) * 1.4826, 0.1)
    refinement = {"loss_type": "CAUCHY", "loss_scale": sigma, "max_iterations": 20}
    votes = np.full(len(grid), np.inf)
    for order in (range(len(grid)), range(len(grid) - 1, -1, -1)):
        carried: poselib.CameraPose | None = None
        for k in order:
            focal_i, focal_j = grid[k] * unit[0], grid[k] * unit[1]
            fresh = _pose_from_fundamental(fundamental, x_i, x_j, focal_i, focal_j)
            for start in [fresh] if carried is None else [fresh, carried]:
                pose, _ = poselib.refine_relative_pose(x_i, x_j, start, _camera(focal_i), _camera(focal_j), refinement)
                error = _sampson(_fundamental(pose.R, pose.t, focal_i, focal_j), x_i, x_j)
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
    rays_i, rays_j = _rays(x_i, focal_i), _rays(x_j, focal_j)
    best, most = poselib.CameraPose(), -1
    for rotation in (u @ turn @ vt, u @ turn.T @ vt):
        for translation in (u[:, 2], -u[:, 2]):
            points, depth_j, _ = _triangulate(rays_i, rays_j, rotation, translation)
            count = int(((points[:, 2] > 0) & (depth_j > 0)).sum())
            if count > most:
                best, most = poselib.CameraPose(), count
                best.R, best.t = rotation, translation
    return best


def _camera(focal: float) -> dict[str, object]:
    """PoseLib's camera for pixels counted from the principal point."""
    return {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal, 0.0, 0.0]}


def _centred(points: Tensor, size: tuple[int, int]) -> Array:
    """Pixels counted from the centre of a view of ``size`` (height, width)."""
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    return points.detach().cpu().numpy().astype(np.float64) - centre


def _rays(x: Array, focal: float) -> Array:
    """Directions with z = 1 of centred pixels."""
    return np.concatenate([x / focal, np.ones_like(x[:, :1])], 1)


def _fundamental(rotation: Array, translation: Array, focal_i: float, focal_j: float) -> Array:
    """F of centred pixels: ``x_j^T F x_i = 0``."""
    x, y, z = translation
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.diag([1 / focal_j, 1 / focal_j, 1.0]) @ cross @ rotation @ np.diag([1 / focal_i, 1 / focal_i, 1.0])


def _sampson(fundamental: Array, x_i: Array, x_j: Array) -> Array:
    """First-order distance in pixels of each match to the epipolar geometry (Hartley and Zisserman, 11.9)."""
    line_j = x_i @ fundamental[:, :2].T + fundamental[:, 2]
    line_i = x_j @ fundamental[:2] + fundamental[2]
    numerator = np.abs((line_j[:, :2] * x_j).sum(1) + line_j[:, 2])
    gradient = line_i[:, 0] ** 2 + line_i[:, 1] ** 2 + line_j[:, 0] ** 2 + line_j[:, 1] ** 2
    return numerator / np.sqrt(np.maximum(gradient, 1e-30))


def _triangulate(rays_i: Array, rays_j: Array, rotation: Array, translation: Array) -> tuple[Array, Array, Array]:
    """Points in camera i half way between the two rays, their depth in camera j and the angle between the rays."""
    b = rays_j @ rotation
    centre = -rotation.T @ translation
    aa, bb, ab = (rays_i * rays_i).sum(1), (b * b).sum(1), (rays_i * b).sum(1)
    ac, bc = rays_i @ centre, b @ centre
    determinant = np.maximum(aa * bb - ab * ab, 1e-12)
    depth_i, depth_j = (bb * ac - ab * bc) / determinant, (ab * ac - aa * bc) / determinant
    points = 0.5 * (rays_i * depth_i[:, None] + centre + b * depth_j[:, None])
    cosine = ab / np.sqrt(aa * bb)
    return points, depth_j, np.arccos(np.clip(cosine, -1, 1))


def _rotation_residual(rays_i: Array, rays_j: Array, focal_j: float) -> Array:
    """Distance in pixels of view j that is left of each match after the robustly best rotation."""
    a = rays_i / np.linalg.norm(rays_i, axis=1, keepdims=True)
    b = rays_j / np.linalg.norm(rays_j, axis=1, keepdims=True)
    weights = np.ones(len(a))
    for _ in range(10):
        u, _, vt = np.linalg.svd((b * weights[:, None]).T @ a)
        rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        residual = focal_j * np.linalg.norm(a @ rotation.T - b, axis=1)
        weights = 1 / np.maximum(residual, 0.5)
    return residual


def _significance(matches: int, inliers: int, chance: float, sample: int = 5) -> float:
    """-log10 of the expected number of geometries with this many inliers among random matches."""

    def log_binomial(n: int, k: int) -> float:
        return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    log_number = (
        math.log(10.0 * max(matches - sample, 1)) + log_binomial(matches, inliers) + log_binomial(inliers, sample)
    )
    return -(log_number + (inliers - sample) * math.log(min(chance, 1.0))) / math.log(10)
