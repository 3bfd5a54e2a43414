"""Stereo and flow without weights: semi-global matching and dense inverse search, believed where both ways agree.

Hirschmueller, "Stereo processing by semiglobal matching and mutual information", PAMI 2008; Kroeger et al., "Fast
optical flow using dense inverse search", ECCV 2016 (both OpenCV).
"""

import functools
import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch

from unposed.models.flow import DisparityPrediction, FlowPrediction, Picture
from unposed.views import Pair

LARGEST_SIDE = 2000
"""Pixels of the longer side at which disparity is looked for; larger pictures are reduced."""
CONSISTENT = 1.0
"""Pixels, at that size, by which left and right disparity may differ; where they do more, disparity is unknown."""
_BLOCK = 3
_SMALL_STEP, _LARGE_STEP = 8 * _BLOCK**2, 32 * _BLOCK**2  # costs of a change by one and by more, as OpenCV advises
_SPECKLE_PIXELS, _SPECKLE_RANGE = 100, 2
_PREFILTER = 63
_OUTSIDE = -1e6


class ClassicStereo:
    """Semi-global matching with a check of left against right; disparity is unknown where they disagree."""

    name = "classic"

    def estimate_disparity(self, left: Picture, right: Picture, largest: float) -> DisparityPrediction:
        """As the protocol says; time and memory grow with ``largest``."""
        height, width = left.shape[:2]
        factor = min(1.0, LARGEST_SIDE / max(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        grey = [cv2.resize(_grey(picture), size, interpolation=cv2.INTER_AREA) for picture in (left, right)]
        steps = 16 * math.ceil((largest * factor + 1) / 16)
        forward = _match(grey[0], grey[1], steps)
        backward = _match(grey[1][:, ::-1], grey[0][:, ::-1], steps)[:, ::-1]
        there = np.zeros((*forward.shape, 2), np.float32)
        there[..., 0] = -forward
        error = np.abs(forward - _sample(backward, there, cv2.INTER_NEAREST))
        known = (forward > 0) & (error <= CONSISTENT)
        scale = width / size[0]
        disparity = np.where(known, forward * scale, 0.0)
        confidence = np.where(known, 1 / (1 + error * scale), 0.0)
        maps = [cv2.resize(x.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
                for x in (disparity, confidence)]  # fmt: skip
        return DisparityPrediction(torch.from_numpy(maps[0]), torch.from_numpy(maps[1]))


class ClassicFlow:
    """Dense inverse search, forth and back: what comes back to where it started is believed."""

    name = "classic"

    def estimate_flow(
        self, pictures: Sequence[Picture], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, FlowPrediction]]:
        """As the protocol says; (a, b) and (b, a) next to each other cost as much as one of them."""
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        search.setFinestScale(0)  # the presets stop at half the size; small things and edges gain by the last step

        @functools.lru_cache(maxsize=4)
        def displaced(a: int, b: int) -> np.ndarray:
            return search.calc(_grey(pictures[a]), _grey(pictures[b]), None)

        for a, b in pairs:
            forward = displaced(a, b)
            error = np.linalg.norm(forward + _sample(displaced(b, a), forward, cv2.INTER_LINEAR), axis=-1)
            yield (a, b), FlowPrediction(torch.from_numpy(forward.copy()), torch.from_numpy(1 / (1 + error)))


def _grey(picture: Picture) -> np.ndarray:
    return cv2.cvtColor(picture.numpy(), cv2.COLOR_RGB2GRAY)


def _match(left: np.ndarray, right: np.ndarray, steps: int) -> np.ndarray:
    """Disparity (height, width) in pixels, negative where unknown; columns beyond the picture's edge are looked at."""
    padded = [cv2.copyMakeBorder(image, 0, 0, steps, 0, cv2.BORDER_REPLICATE) for image in (left, right)]
    matcher = cv2.StereoSGBM.create(
        minDisparity=0,
        numDisparities=steps,
        blockSize=_BLOCK,
        P1=_SMALL_STEP,
        P2=_LARGE_STEP,
        preFilterCap=_PREFILTER,
        speckleWindowSize=_SPECKLE_PIXELS,
        speckleRange=_SPECKLE_RANGE,
        mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
    )
    return matcher.compute(*padded)[:, steps:].astype(np.float32) / 16


def _sample(values: np.ndarray, displacement: np.ndarray, interpolation: int) -> np.ndarray:
    """``values`` (height, width[, channels]) where a displacement (height, width, 2) leads; far away outside."""
    height, width = displacement.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    place = (x + displacement[..., 0], y + displacement[..., 1])
    values = np.ascontiguousarray(values)
    return cv2.remap(
        values, *place, interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=(_OUTSIDE, _OUTSIDE, 0, 0)
    )
