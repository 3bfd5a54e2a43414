"""Two photos side by side with lines between their matches."""

import colorsys

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

HEIGHT = 420
"""Pixels of the picture."""
LINES = 100
"""At most so many matches are drawn, spread over photo a."""
_CELLS = 16
_GAP = 8


def draw_matches(
    image_a: UInt8[Tensor, "height_a width_a 3"],
    image_b: UInt8[Tensor, "height_b width_b 3"],
    points_a: Float[Tensor, "n 2"],
    points_b: Float[Tensor, "n 2"],
    confidence: Float[Tensor, "n"],
) -> UInt8[Tensor, "height width 3"]:
    """RGB picture; the colour of a line tells where in photo a it starts, points are in pixels of the photos."""
    small = [_at_height(image.numpy()) for image in (image_a, image_b)]
    offset = small[0].shape[1] + _GAP
    picture = np.full((HEIGHT, offset + small[1].shape[1], 3), 255, np.uint8)
    picture[:, : small[0].shape[1]], picture[:, offset:] = small
    chosen = _spread(points_a, confidence, tuple(image_a.shape[:2]))
    starts = points_a[chosen] * (HEIGHT / image_a.shape[0])
    ends = points_b[chosen] * (HEIGHT / image_b.shape[0]) + torch.tensor([float(offset), 0.0])
    colours = [colorsys.hsv_to_rgb(float(where.sum()) / (offset + HEIGHT), 0.9, 1.0) for where in starts]
    for start, end, colour in zip(starts.tolist(), ends.tolist(), colours, strict=True):
        rgb = [round(255 * c) for c in colour]
        p, q = (tuple(round(16 * c) for c in point) for point in (start, end))  # sub-pixel: 4 bits after the point
        cv2.line(picture, p, q, rgb, 1, cv2.LINE_AA, 4)
        for point in (p, q):
            cv2.circle(picture, point, 2 * 16, rgb, -1, cv2.LINE_AA, 4)
    return torch.from_numpy(picture)


def _at_height(image: np.ndarray) -> np.ndarray:
    width = max(1, round(image.shape[1] * HEIGHT / image.shape[0]))
    return cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA)


def _spread(points: Tensor, confidence: Tensor, size: tuple[int, ...]) -> Tensor:
    """Up to ``LINES`` indices: the most confident match of every cell of a grid over the photo, then the second, ..."""
    cell = (points / torch.tensor([size[1], size[0]]) * _CELLS).long().clamp(0, _CELLS - 1)
    cell = cell[:, 1] * _CELLS + cell[:, 0]
    order = confidence.argsort(descending=True, stable=True)
    seen: dict[int, int] = {}
    rank = torch.zeros(len(points), dtype=torch.long)
    for k in order.tolist():
        rank[k] = seen.get(int(cell[k]), 0)
        seen[int(cell[k])] = int(rank[k]) + 1
    return order[rank[order].argsort(stable=True)][:LINES]
