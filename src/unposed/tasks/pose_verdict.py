"""Whether a relative pose is to be believed: judged by the matches of the two photos, whatever method found it."""

import math
from dataclasses import dataclass

import numpy as np
import poselib
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.geometry.epipolar import fundamental_matrix, rays, sampson, triangulate_midpoints
from unposed.geometry.essential import MINIMUM_INLIERS, SIGNIFICANCE, TwoView, centred
from unposed.geometry.pose_uncertainty import pose_uncertainty
from unposed.views import Matches

LEAST_INLIERS = 30
SMALLEST_ANGLE = math.radians(0.5)
"""A tenth of the matches must see the two cameras under a larger angle."""
HOMOGRAPHY_SHARE = 0.92
"""Matches of which one homography explains this share tell little of a pose while the focal lengths are guesses."""
GUESSED_FOCAL = 0.1
"""Focal lengths less certain than this (standard deviation of the logarithm) are guesses."""
LARGEST_MISFIT = 0.3
"""Log-likelihood per match by which a fundamental matrix may explain the matches better than the pose does."""
LEAST_NOISE = 0.05
"""Pixels; the best matches are not better than this."""
LEAST_SHARE = 0.7
"""Of the matches that the best epipolar geometry explains, the pose must explain this share."""
LARGEST_ROTATION_UNCERTAINTY = 3.0
"""Degrees, one standard error."""
LARGEST_TRANSLATION_UNCERTAINTY = 10.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks for or against poses of a pair: matches and intrinsics, in pixels of views about 640 long."""

    matches: Matches
    size_a: tuple[int, int]
    """(height, width)."""
    size_b: tuple[int, int]
    intrinsics_a: Float[Tensor, "3 3"]
    intrinsics_b: Float[Tensor, "3 3"]
    focal_spread: float
    """Standard deviation of the logarithm of the focal lengths."""
    max_error: float
    """Pixels within which a match must obey the epipolar geometry of a pose."""


@dataclass(frozen=True)
class Verdict:
    """What the matches say of a pose."""

    reason: str
    """Why not to believe it, in one sentence; empty when nothing speaks against it."""
    inliers: int
    rotation_uncertainty: float
    """Degrees, as ``pose_uncertainty`` has them."""
    translation_uncertainty: float


def judge(evidence: Evidence, b_from_a: Float[Tensor, "4 4"] | None, essential: TwoView | None) -> Verdict:
    """Judge a pose (None: none was found); ``essential`` is the best epipolar geometry of the matches, if any."""
    found = len(evidence.matches.confidence)
    if found < MINIMUM_INLIERS:
        return _no(f"only {found} matches were found: the photos hardly show the same things")
    if essential is None:
        return _no(f"the {found} matches do not agree on any pose: the photos hardly show the same things")
    if b_from_a is None:
        return _no("the model is too unsure of the points for this method: try another one")
    inliers = obeying(evidence, b_from_a)
    count = int(inliers.sum())
    a, b = evidence.matches.points_a[inliers], evidence.matches.points_b[inliers]
    told = pose_uncertainty(a, b, evidence.intrinsics_a, evidence.intrinsics_b, b_from_a, evidence.focal_spread)
    reason = _objection(evidence, essential, count)
    if not reason and _too_open(told):
        calibrated = pose_uncertainty(a, b, evidence.intrinsics_a, evidence.intrinsics_b, b_from_a)
        cause = (
            "they are too few, too close together, or seen from too small a distance between the cameras"
            if _too_open(calibrated)
            else "give the focal lengths, which are guesses so far"
        )
        turn, direction = told
        reason = (
            f"the matches leave the pose open by about {turn:.0f} degrees in rotation, {direction:.0f} in translation: "
            + cause
        )
    return Verdict(reason, count, *told)


def _too_open(uncertainty: tuple[float, float]) -> bool:
    return uncertainty[0] > LARGEST_ROTATION_UNCERTAINTY or uncertainty[1] > LARGEST_TRANSLATION_UNCERTAINTY


def obeying(evidence: Evidence, b_from_a: Float[Tensor, "4 4"]) -> Bool[Tensor, "n"]:
    """Matches within the error of the epipolar geometry of a pose whose points lie in front of both cameras."""
    x_a, focal_a = centred(evidence.matches.points_a, evidence.intrinsics_a)
    x_b, focal_b = centred(evidence.matches.points_b, evidence.intrinsics_b)
    rotation, translation = b_from_a[:3, :3].double().numpy(), b_from_a[:3, 3].double().numpy()
    length = float(np.linalg.norm(translation))
    if length == 0:
        return torch.zeros(len(x_a), dtype=torch.bool)
    translation = translation / length
    error = sampson(fundamental_matrix(rotation, translation, focal_a, focal_b), x_a, x_b)
    points, depth_b, _ = triangulate_midpoints(rays(x_a, focal_a), rays(x_b, focal_b), rotation, translation)
    return torch.from_numpy((error < evidence.max_error) & (points[:, 2] > 0) & (depth_b > 0))


def _objection(evidence: Evidence, essential: TwoView, inliers: int) -> str:
    """The first thing that speaks against a pose; empty when nothing does."""
    agreeing = int(essential.inliers.sum())
    if essential.rotation_only:
        return "the camera only turned: the rotation may be right, the direction of the translation is unknown"
    if essential.significance < SIGNIFICANCE or agreeing < LEAST_INLIERS:
        return f"only {agreeing} matches agree: the photos hardly show the same things"
    if inliers < LEAST_SHARE * agreeing:
        return f"the pose contradicts the matches: it explains {inliers} of {agreeing}"
    if essential.ambiguous:
        return "the matches lie on one plane, which two different poses explain"
    if float(essential.angles.quantile(0.9)) < SMALLEST_ANGLE:
        return "the cameras stand too near to each other for what they look at: the translation is unknown"
    if evidence.focal_spread > GUESSED_FOCAL and _homography_share(evidence) > HOMOGRAPHY_SHARE:
        return "the matches lie near one plane, or the camera hardly moved: give the focal lengths to settle the pose"
    if _misfit(evidence, essential) > LARGEST_MISFIT:
        if evidence.focal_spread == 0:
            return "the given focal lengths do not fit the matches: check them, or undistort the photos"
        return "the focal lengths do not fit the matches (different zoom?): give the focal lengths"
    return ""


def _homography_share(evidence: Evidence) -> float:
    """Share of the matches that one homography explains."""
    a, b = evidence.matches.points_a.double().numpy(), evidence.matches.points_b.double().numpy()
    options = {"max_reproj_error": 2 * evidence.max_error, "max_iterations": 1000, "min_iterations": 100}
    _, info = poselib.estimate_homography(a, b, options, {})
    return sum(info["inliers"]) / len(a)


def _misfit(evidence: Evidence, essential: TwoView) -> float:
    """How much better, in log-likelihood per match, a fundamental matrix explains what the essential one does.

    A calibrated pose that is right leaves noise alone; focal lengths that are wrong leave more.
    """
    x_a, focal_a = centred(evidence.matches.points_a[essential.inliers], evidence.intrinsics_a)
    x_b, focal_b = centred(evidence.matches.points_b[essential.inliers], evidence.intrinsics_b)
    pose = essential.j_from_i.numpy()
    calibrated = sampson(fundamental_matrix(pose[:3, :3], pose[:3, 3], focal_a, focal_b), x_a, x_b)
    options = {"max_epipolar_error": evidence.max_error, "max_iterations": 2000, "min_iterations": 100}
    free = sampson(np.array(poselib.estimate_fundamental(x_a, x_b, options, {})[0]), x_a, x_b)
    noise = max(1.4826 * float(np.median(free)), LEAST_NOISE)
    return float((np.log1p((calibrated / noise) ** 2) - np.log1p((free / noise) ** 2)).mean())


def _no(reason: str) -> Verdict:
    return Verdict(reason, 0, 180.0, 90.0)
