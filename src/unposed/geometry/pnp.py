"""Camera pose from pixels and the points they show: PnP inside RANSAC, with a known or an unknown focal length."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import poselib
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.geometry.cameras import intrinsics_matrix, project
from unposed.geometry.transforms import invert_rigid, rigid, transform_points

REPROJECTION_ERROR = 5.0
"""Pixels; the threshold of DUSt3R's pose estimates."""
FOCAL_CANDIDATES = 21
"""Focals tried when it is unknown, geometrically spaced from 0.5 to 3 times the longer side (as DUSt3R does)."""
_FINE_CANDIDATES = 9
_OPENCV_CONFIDENCE = 0.9999


@dataclass(frozen=True, eq=False)
class PnPResult:
    """A camera that PnP found."""

    world_from_camera: Float[Tensor, "4 4"]
    intrinsics: Float[Tensor, "3 3"]
    inliers: Bool[Tensor, "n"]
    """Correspondences within the reprojection error."""


def solve_pnp(
    pixels: Float[Tensor, "n 2"],
    points: Float[Tensor, "n 3"],
    intrinsics: Float[Tensor, "3 3"],
    reprojection_error: float = REPROJECTION_ERROR,
    max_iterations: int = 1000,
    method: Literal["poselib", "opencv"] = "poselib",
) -> PnPResult | None:
    """Pose of the camera that sees ``points`` (world) at ``pixels``, by RANSAC; deterministic.

    ``poselib`` is LO-RANSAC with robust refinement. ``opencv`` is SQPNP inside plain RANSAC, solved once more on the
    inliers: what DUSt3R's code uses. None when fewer than 4 correspondences are given or agree.
    """
    if len(pixels) < 4:
        return None
    observed = np.ascontiguousarray(pixels.double().cpu().numpy())
    known = np.ascontiguousarray(points.double().cpu().numpy())
    solve = _solve_poselib if method == "poselib" else _solve_opencv
    found = solve(observed, known, intrinsics.double().cpu().numpy(), reprojection_error, max_iterations)
    if found is None:
        return None
    rotation, translation, inliers = found
    camera_from_world = rigid(torch.as_tensor(rotation), torch.as_tensor(translation))
    if int(inliers.sum()) < 4 or not bool(camera_from_world.isfinite().all()):
        return None
    return PnPResult(
        invert_rigid(camera_from_world).to(points), intrinsics, torch.tensor(inliers, device=points.device)
    )


def undistort_pixels(
    pixels: Float[Tensor, "n 2"], intrinsics: Float[Tensor, "3 3"], distortion: Float[Tensor, "4"]
) -> Float[Tensor, "n 2"]:
    """Pixels that a camera without lens distortion (k1, k2, p1, p2 of OpenCV) and the same K would see."""
    k = intrinsics.double().cpu().numpy()
    straight = cv2.undistortPoints(pixels.double().cpu().numpy(), k, distortion.double().cpu().numpy(), P=k)
    return torch.as_tensor(straight[:, 0]).to(pixels)


def solve_pnp_unknown_focal(
    pixels: Float[Tensor, "n 2"],
    points: Float[Tensor, "n 3"],
    principal_point: Float[Tensor, "2"],
    image_size: tuple[int, int],
    reprojection_error: float = REPROJECTION_ERROR,
    max_iterations: int = 1000,
) -> PnPResult | None:
    """As ``solve_pnp``, with the best of 21 focals for an image of (height, width), then of 9 around it.

    Best is the least sum of squared reprojection errors, each at most the threshold's: where many focals make all
    points inliers, counting those would not tell them apart.
    """
    side = max(image_size)
    best: tuple[float, PnPResult] | None = None
    focals = np.geomspace(side / 2, side * 3, FOCAL_CANDIDATES)
    step = focals[1] / focals[0]
    for _ in range(2):
        for focal in focals:
            intrinsics = intrinsics_matrix(float(focal), principal_point.to(points))
            result = solve_pnp(pixels, points, intrinsics, reprojection_error, max_iterations)
            if result is not None:
                cost = _truncated_cost(result, pixels, points, reprojection_error)
                if best is None or cost < best[0]:
                    best = cost, result
        if best is None:
            return None
        focal = float(best[1].intrinsics[0, 0])
        focals = np.geomspace(focal / step, focal * step, _FINE_CANDIDATES)
    assert best is not None
    return best[1]


def _truncated_cost(result: PnPResult, pixels: Tensor, points: Tensor, limit: float) -> float:
    """Sum of squared reprojection errors, each at most ``limit`` squared."""
    camera_points = transform_points(invert_rigid(result.world_from_camera), points)
    error = (project(camera_points, result.intrinsics) - pixels).square().sum(-1)
    return float(
        torch.where(camera_points[:, 2] > 0, error, torch.full_like(error, limit**2)).clamp(max=limit**2).sum()
    )


def _solve_poselib(
    pixels: np.ndarray, points: np.ndarray, k: np.ndarray, limit: float, max_iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Rotation and translation camera_from_world, and the inlier mask."""
    camera = {"model": "PINHOLE", "width": 0, "height": 0, "params": [k[0, 0], k[1, 1], k[0, 2], k[1, 2]]}
    ransac = {
        "max_reproj_error": limit,
        "max_iterations": max_iterations,
        "min_iterations": min(100, max_iterations),
        "seed": 0,
    }
    refinement = {"loss_type": "TRUNCATED", "loss_scale": limit}
    pose, info = poselib.estimate_absolute_pose(pixels, points, camera, ransac, refinement)
    return np.array(pose.R), np.array(pose.t), np.array(info["inliers"], bool)


def _solve_opencv(
    pixels: np.ndarray, points: np.ndarray, k: np.ndarray, limit: float, max_iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """As ``_solve_poselib``; None when OpenCV finds nothing."""
    success, turn, translation, rows = cv2.solvePnPRansac(
        points,
        pixels,
        k,
        None,
        iterationsCount=max_iterations,
        reprojectionError=limit,
        confidence=_OPENCV_CONFIDENCE,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not success or rows is None:
        return None
    inliers = np.zeros(len(pixels), bool)
    inliers[rows[:, 0]] = True
    return cv2.Rodrigues(turn)[0], translation[:, 0], inliers
