"""Camera pose from pixels and the points they show: PnP inside RANSAC, with a known or an unknown focal length."""

from dataclasses import dataclass

import numpy as np
import poselib
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.geometry.cameras import intrinsics_matrix
from unposed.geometry.transforms import invert_rigid, rigid

REPROJECTION_ERROR = 5.0
"""Pixels; the threshold of DUSt3R's pose estimates."""
FOCAL_CANDIDATES = 21
"""Focals tried when it is unknown, geometrically spaced from 0.5 to 3 times the longer side (as DUSt3R does)."""


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
) -> PnPResult | None:
    """Pose of the camera that sees ``points`` (world) at ``pixels``: LO-RANSAC and refinement (PoseLib).

    Deterministic. None when fewer than 4 correspondences are given or agree.
    """
    if len(pixels) < 4:
        return None
    k = intrinsics.double().cpu().numpy()
    camera = {"model": "PINHOLE", "width": 0, "height": 0, "params": [k[0, 0], k[1, 1], k[0, 2], k[1, 2]]}
    ransac = {
        "max_reproj_error": reprojection_error,
        "max_iterations": max_iterations,
        "min_iterations": min(100, max_iterations),
        "seed": 0,
    }
    pose, info = poselib.estimate_absolute_pose(
        np.ascontiguousarray(pixels.double().cpu().numpy()),
        np.ascontiguousarray(points.double().cpu().numpy()),
        camera,
        ransac,
        {"loss_type": "TRUNCATED", "loss_scale": reprojection_error},
    )
    inliers = torch.tensor(np.asarray(info["inliers"], bool))
    camera_from_world = rigid(torch.tensor(pose.R), torch.tensor(pose.t))
    if int(inliers.sum()) < 4 or not bool(camera_from_world.isfinite().all()):
        return None
    return PnPResult(invert_rigid(camera_from_world).to(points), intrinsics, inliers.to(points.device))


def solve_pnp_unknown_focal(
    pixels: Float[Tensor, "n 2"],
    points: Float[Tensor, "n 3"],
    principal_point: Float[Tensor, "2"],
    image_size: tuple[int, int],
    reprojection_error: float = REPROJECTION_ERROR,
    max_iterations: int = 1000,
) -> PnPResult | None:
    """As ``solve_pnp``, trying 21 focals for an image of ``image_size`` (height, width); most inliers win, first on ties."""
    side = max(image_size)
    best: PnPResult | None = None
    for focal in np.geomspace(side / 2, side * 3, FOCAL_CANDIDATES):
        intrinsics = intrinsics_matrix(float(focal), principal_point.to(points))
        result = solve_pnp(pixels, points, intrinsics, reprojection_error, max_iterations)
        if result is not None and (best is None or int(result.inliers.sum()) > int(best.inliers.sum())):
            best = result
    return best
