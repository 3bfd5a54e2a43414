"""SIFT as the weight-free models use it: many keypoints with affine shapes, mutual matches, guided matches.

Keypoints: Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004 (OpenCV).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from unposed.geometry.ratio_test import ratio_matches
from unposed.models.affine_sift import describe

KEYPOINTS = 3500
CONTRAST = 0.005
"""Far below OpenCV's default, so that carpets and plain walls keep their keypoints."""
RATIO = 0.85


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Keypoints of one image: sub-pixel positions and unit descriptors (their dot product is the similarity)."""

    points: Float[Tensor, "n 2"]
    """A position with two dominant orientations occurs twice."""
    descriptors: Float[Tensor, "n 128"]


def detect(image: UInt8[Tensor, "height width 3"], most: int = KEYPOINTS) -> Keypoints:
    """The strongest keypoints of an RGB image, up to ``most`` positions."""
    grey = cv2.cvtColor(image.numpy(), cv2.COLOR_RGB2GRAY)
    detector = cv2.SIFT.create(contrastThreshold=CONTRAST, edgeThreshold=12, enable_precise_upscale=True)
    strongest = sorted(detector.detect(grey, None), key=lambda keypoint: -keypoint.response)
    places = dict.fromkeys((*keypoint.pt, keypoint.size / 2) for keypoint in strongest)
    if not places:
        return Keypoints(torch.zeros(0, 2), torch.zeros(0, 128))
    found = torch.from_numpy(np.array(list(places)[:most], np.float32))
    return Keypoints(*describe(grey, found[:, :2], found[:, 2]))


def match(a: Keypoints, b: Keypoints) -> Int[Tensor, "n 2"]:
    """Index pairs (a, b) of mutual nearest neighbours that pass Lowe's ratio test seen from ``a``, best first."""
    return ratio_matches(a.descriptors, b.descriptors, RATIO)
