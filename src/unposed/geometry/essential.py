"""Relative pose of two calibrated views from matched pixels: LO-RANSAC essential matrix and what speaks against it.

Solvers: PoseLib (Larsson et al.). Significance of a geometry: Moisan and Stival, IJCV 2004 (a-contrario RANSAC).
"""

import math
from dataclasses import dataclass

import numpy as np
import poselib
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from unposed.geometry.epipolar import (
    Array,
    fundamental_matrix,
    rays,
    rotation_residual,
    sampson,
    significance,
    triangulate_midpoints,
)

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


def solve_essential(
    pixels_i: Float[Tensor, "n 2"],
    pixels_j: Float[Tensor, "n 2"],
    intrinsics_i: Float[Tensor, "3 3"],
    intrinsics_j: Float[Tensor, "3 3"],
    size_j: tuple[int, int],
    max_error: float = 1.0,
) -> TwoView | None:
    """Relative pose from matched pixels; None where fewer than ``MINIMUM_INLIERS`` agree on one. Deterministic.

    Pixels are those of images about 640 long: a match is believed to be good to ``NOISE_FLOOR`` pixels at best.

    Args:
        pixels_i, pixels_j: matches, wrong ones among them.
        intrinsics_i, intrinsics_j: K of the two images.
        size_j: (height, width) of image j, which tells how easily a wrong match is an inlier.
        max_error: Sampson distance in pixels up to which a match is an inlier.
    """
    if len(pixels_i) < MINIMUM_INLIERS:
        return None
    (x_i, focal_i), (x_j, focal_j) = centred(pixels_i, intrinsics_i), centred(pixels_j, intrinsics_j)
    options = {"max_epipolar_error": max_error, "max_iterations": 10000, "min_iterations": 500}
    pose, info = poselib.estimate_relative_pose(x_i, x_j, centred_camera(focal_i), centred_camera(focal_j), options, {})
    if sum(info["inliers"]) < MINIMUM_INLIERS:
        return None
    best = _support(pose, x_i, x_j, focal_i, focal_j, max_error)
    rivals = [
        _support(pose, x_i, x_j, focal_i, focal_j, max_error) for pose in _planar_poses(x_i, x_j, best, max_error)
    ]
    noise = max(float(np.median(best.error[best.inliers])) * 1.4826, NOISE_FLOOR) if best.inliers.any() else max_error
    best = min([best, *rivals], key=lambda candidate: _misfit(candidate, noise))
    count = int(best.inliers.sum())
    if count < MINIMUM_INLIERS:
        return None
    rays_i, rays_j = rays(x_i[best.inliers], focal_i), rays(x_j[best.inliers], focal_j)
    j_from_i = torch.eye(4, dtype=torch.float64)
    j_from_i[:3, :3], j_from_i[:3, 3] = torch.from_numpy(best.rotation), torch.from_numpy(best.translation)
    return TwoView(
        j_from_i=j_from_i,
        focal_i=focal_i,
        focal_j=focal_j,
        inliers=torch.from_numpy(best.inliers),
        points=torch.from_numpy(best.points[best.inliers]),
        angles=torch.from_numpy(best.angles[best.inliers]),
        significance=significance(len(x_i), count, _chance(size_j, max_error)),
        rotation_only=bool(np.mean(rotation_residual(rays_i, rays_j, focal_j) < 1.5 * max_error) > ROTATION_SHARE),
        ambiguous=any(
            _differs(best, rival) and _misfit(rival, noise) < _misfit(best, noise) + RIVAL_MARGIN for rival in rivals
        ),
    )


def fundamental_inliers(
    pixels_i: Float[Tensor, "n 2"], pixels_j: Float[Tensor, "n 2"], size_j: tuple[int, int], max_error: float = 1.0
) -> Bool[Tensor, "n"]:
    """Which matches obey one fundamental matrix (LO-RANSAC, no calibration needed); none where chance explains it.

    ``size_j`` is (height, width) of image j, which tells how easily a wrong match is an inlier; ``max_error`` the
    Sampson distance in pixels.
    """
    nothing = torch.zeros(len(pixels_i), dtype=torch.bool)
    if len(pixels_i) < MINIMUM_INLIERS:
        return nothing
    options = {"max_epipolar_error": max_error, "max_iterations": 10000, "min_iterations": 500}
    x_i, x_j = pixels_i.double().numpy(), pixels_j.double().numpy()
    _, info = poselib.estimate_fundamental(x_i, x_j, options, {})
    inliers = torch.tensor(info["inliers"], dtype=torch.bool)
    count = int(inliers.sum())
    meant = count >= MINIMUM_INLIERS and (
        significance(len(x_i), count, _chance(size_j, max_error), sample=7) > SIGNIFICANCE
    )
    return inliers if meant else nothing


def _chance(size_j: tuple[int, int], max_error: float) -> float:
    """Probability that a wrong match lies within ``max_error`` of its epipolar line in an image of (height, width)."""
    return 2 * max_error * math.hypot(*size_j) / (size_j[0] * size_j[1])


def centred(pixels: Float[Tensor, "n 2"], intrinsics: Float[Tensor, "3 3"]) -> tuple[Array, float]:
    """Pixels counted from the principal point, made square, and their focal length (the mean of fx and fy)."""
    k = intrinsics.detach().double().cpu()
    focal = float(k[0, 0] + k[1, 1]) / 2
    stretch = focal / k.diagonal()[:2]
    return ((pixels.detach().double().cpu() - k[:2, 2]) * stretch).numpy(), focal


def centred_camera(focal: float) -> dict[str, object]:
    """PoseLib's camera for pixels counted from the principal point."""
    return {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal, 0.0, 0.0]}


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
    error = sampson(fundamental_matrix(rotation, translation, focal_i, focal_j), x_i, x_j)
    points, depth_j, angles = triangulate_midpoints(rays(x_i, focal_i), rays(x_j, focal_j), rotation, translation)
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
    cameras = centred_camera(best.focal_i), centred_camera(best.focal_j)
    return [poselib.refine_relative_pose(x_i, x_j, pose, *cameras, refinement)[0] for pose in poses]


def _differs(a: _Support, b: _Support) -> bool:
    """Whether two poses are further apart than noise explains: 3 degrees of rotation or 15 of translation."""
    turn = (np.trace(a.rotation.T @ b.rotation) - 1) / 2
    return bool(turn < math.cos(math.radians(3)) or a.translation @ b.translation < math.cos(math.radians(15)))
