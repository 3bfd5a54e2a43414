"""Sky by colour: a rule of thumb of DUSt3R's demo that spares an export the far blue shell behind a scene."""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

_BLUE = ((0, 0, 100), (30, 255, 255))  # hue, saturation, value; blue sits at hue 0..30 when red and blue are swapped
_PALE = ((10, 150), (30, 180), (50, 220))  # saturation below, value above: clouds and haze


def sky_mask(image: UInt8[Tensor, "height width 3"]) -> Bool[Tensor, "height width"]:
    """Pixels that look like sky: blue or pale and bright, in regions more than half as large as the largest.

    ``image`` is RGB; it is read with red and blue swapped, as the rule's ranges were made (DUSt3R demo).
    """
    hsv = cv2.cvtColor(image.numpy(), cv2.COLOR_BGR2HSV)
    saturation, value = hsv[..., 1], hsv[..., 2]
    mask = cv2.inRange(hsv, np.array(_BLUE[0]), np.array(_BLUE[1])) > 0
    for most_saturation, least_value in _PALE:
        mask |= (saturation < most_saturation) & (value > least_value)
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    _, label, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # what is not sky
    large = areas > areas.max() / 2
    return torch.from_numpy(large[label])
