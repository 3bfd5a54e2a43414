"""SIFT as the weight-free models use it: many RootSIFT keypoints, mutual nearest neighbours, guided matching.

Keypoints: Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004 (OpenCV). RootSIFT: Arandjelovic
and Zisserman, CVPR 2012.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Keypoints of one image: sub-pixel positions and unit descriptors (their dot product is the similarity)."""

    points: Float[Tensor, "n 2"]
    descriptors: Float[Tensor, "n 128"]


def detect(image: UInt8[Tensor, "height width 3"], limit: int = 4096, contrast: float = 0.005) -> Keypoints:
    """The ``limit`` strongest SIFT keypoints of an RGB image; the low contrast threshold keeps weak texture alive."""
    grey = cv2.cvtColor(image.numpy(), cv2.COLOR_RGB2GRAY)
    sift = cv2.SIFT.create(nfeatures=limit, contrastThreshold=contrast, edgeThreshold=12, enable_precise_upscale=True)
    keypoints, descriptors = sift.detectAndCompute(grey, None)
    if not keypoints:
        return Keypoints(torch.zeros(0, 2), torch.zeros(0, 128))
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9))
    points = np.array([keypoint.pt for keypoint in keypoints], np.float32)
    return Keypoints(torch.from_numpy(points), torch.from_numpy(root.astype(np.float32)))


def match(a: Keypoints, b: Keypoints, ratio: float = 0.85) -> Int[Tensor, "n 2"]:
    """Index pairs (a, b) of mutual nearest neighbours that pass Lowe's ratio test from the side of ``a``, best first."""
    if len(a.points) < 2 or len(b.points) < 2:
        return torch.zeros(0, 2, dtype=torch.long)
    similarity = a.descriptors @ b.descriptors.T
    best, index = similarity.topk(2, dim=1)
    rows = torch.arange(len(a.points))
    mutual = similarity.argmax(0)[index[:, 0]] == rows
    distance = (2 - 2 * best).clamp(min=0).sqrt()
    passes = mutual & (distance[:, 0] < ratio * distance[:, 1])
    order = (distance[:, 0] / distance[:, 1].clamp(min=1e-9))[passes].argsort()
    return torch.stack([rows[passes], index[passes, 0]], 1)[order]
