"""What learned methods have to beat, measured in the same run: SIFT with an essential matrix, and constant depth."""

from functools import lru_cache

import cv2
import numpy as np
import poselib
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, PosedPair
from unposed.geometry.transforms import rigid
from unposed.io.photos import Photo
from unposed.views import Camera

LONG_SIDE = 640
"""Photos are looked at no larger than this, as the models here do."""
FEATURES = 2000
RATIO = 0.8
MAX_ERROR = 1.0
"""Pixels (of the resized photo) within which a match obeys an epipolar geometry."""
MINIMUM_MATCHES = 8


def sift_pose(pair: PosedPair) -> Float[Tensor, "4 4"]:
    """``b_from_a`` (float64, unit translation) from RootSIFT matches and LO-RANSAC, with the TRUE intrinsics.

    Keypoints: Lowe, IJCV 2004; ratio test and mutual neighbours. Solver: PoseLib.

    Raises:
        UserError: too few matches, or a camera is not known.
    """
    points, cameras = [], []
    (places_a, looks_a, scale_a), (places_b, looks_b, scale_b) = (_sift(frame.photo) for frame in (pair.a, pair.b))
    matches = _matches(looks_a, looks_b)
    if len(matches) < MINIMUM_MATCHES:
        raise UserError(f"only {len(matches)} SIFT matches")
    for frame, places, scale, index in zip(
        (pair.a, pair.b), (places_a, places_b), (scale_a, scale_b), matches.T, strict=True
    ):
        points.append(places[index].astype(np.float64))
        cameras.append(_solver_camera(frame, scale))
    options = {"max_epipolar_error": MAX_ERROR, "max_iterations": 10000}
    pose, _ = poselib.estimate_relative_pose(*points, *cameras, options, {})
    translation = torch.from_numpy(np.array(pose.t))
    return rigid(torch.from_numpy(np.array(pose.R)), translation / translation.norm().clamp(min=1e-12))


@lru_cache(maxsize=64)
def _sift(photo: Photo) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 128"], float]:
    """Places in pixels of the resized photo, RootSIFT descriptors, and the scale of the resize."""
    grey = np.asarray(photo.load().convert("L"))
    scale = min(1.0, LONG_SIDE / max(grey.shape))
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    keypoints, descriptors = cv2.SIFT.create(FEATURES).detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128)), scale
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-7))
    return np.array([keypoint.pt for keypoint in keypoints]), root.astype(np.float32), scale


def _matches(a: Float[np.ndarray, "n 128"], b: Float[np.ndarray, "m 128"]) -> np.ndarray:
    """Index pairs of mutual nearest neighbours that pass the ratio test."""
    if min(len(a), len(b)) < 2:
        return np.zeros((0, 2), np.int64)
    likeness = a @ b.T
    two = np.sort(-likeness, axis=1)[:, :2]
    distance = np.sqrt(np.maximum(2 + 2 * two, 0))
    best = likeness.argmax(1)
    rows = np.arange(len(a))
    kept = (likeness.argmax(0)[best] == rows) & (distance[:, 0] < RATIO * distance[:, 1])
    return np.stack([rows[kept], best[kept]], 1)


def _solver_camera(frame: Frame, scale: float) -> dict[str, object]:
    """The true camera for the resized photo, as PoseLib takes it."""
    if frame.camera is None:
        raise UserError(f"the camera of {frame.photo.name} is not known")
    half = (scale - 1) / 2
    resize = torch.tensor([[scale, 0, half], [0, scale, half], [0, 0, 1]], dtype=torch.float64)
    camera: Camera = frame.camera.through(resize, round(frame.camera.width * scale), round(frame.camera.height * scale))
    k = camera.intrinsics.double()
    params = [float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])]
    return {"model": "PINHOLE", "width": camera.width, "height": camera.height, "params": params}


def constant_depth(truth: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """One everywhere: what is left is the alignment with the truth."""
    return torch.ones_like(truth)
