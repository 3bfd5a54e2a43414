"""SIFT descriptors of affinely adapted keypoints: what survives when a surface is seen under a very different slant.

Shape adaptation: Lindeberg and Garding 1997, Mikolajczyk and Schmid, "Scale and affine invariant interest point
detectors", IJCV 2004, section 4. Descriptor: Lowe, IJCV 2004, sections 5 and 6. RootSIFT: Arandjelovic and Zisserman,
CVPR 2012. Everything is one batch over the keypoints of an image; a keypoint is a position and a scale sigma in pixels.
"""

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

SHAPE_ROUNDS = 4
SHAPE_EXTENT, SHAPE_SIDE = 4.0, 17
"""Half width in sigmas and side in samples of the window in which the shape is estimated."""
MOST_STRETCH = 2.0
"""Largest ratio by which an axis of a shape may differ from the scale; beyond it lie edges, not slanted surfaces."""
TURN_EXTENT, TURN_SIDE, TURN_BINS = 4.5, 19, 36
SECOND_PEAK = 0.8
"""A second orientation this strong, as a share of the first, makes a second descriptor (Lowe, section 5)."""
EXTENT, SIDE, CELLS, ANGLES = 6.0, 24, 4, 8
"""Descriptor: half width in sigmas, side in samples, cells to a side and orientations in each."""
CLIP = 0.2
BATCH = 1024

ScaleSpace = list[Float[Tensor, "1 1 height width"]]


def describe(
    grey: NDArray[np.uint8], points: Float[Tensor, "n 2"], sigmas: Float[Tensor, "n"]
) -> tuple[Float[Tensor, "m 2"], Float[Tensor, "m 128"]]:
    """Unit RootSIFT descriptors of keypoints, and the position each belongs to (some positions get two)."""
    blurred = _scale_space(grey)
    positions, descriptors = [], []
    for start in range(0, len(points), BATCH):
        xy, scale = points[start : start + BATCH], sigmas[start : start + BATCH]
        shape = _adapted_shapes(blurred, xy, scale)
        index, turn = _orientations(blurred, xy, scale, shape)
        positions.append(xy[index])
        descriptors.append(_histograms(blurred, xy[index], scale[index], shape[index] @ turn))
    return torch.cat(positions), torch.cat(descriptors)


def _scale_space(grey: NDArray[np.uint8], levels: int = 9) -> ScaleSpace:
    """The image blurred to sigma 1, sqrt 2, 2, ... pixels, taken to have sigma 0.5 itself; all at full size."""
    image = grey.astype(np.float32)
    blurs = [math.sqrt(2.0**level - 0.25) for level in range(levels)]
    return [torch.from_numpy(cv2.GaussianBlur(image, (0, 0), blur))[None, None] for blur in blurs]


def _window(extent: float, side: int) -> Float[Tensor, "side side 2"]:
    """Sample positions (x, y) of a square window, in sigmas."""
    along = torch.linspace(-extent, extent, side)
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x, y], -1)


def _gradients(
    blurred: ScaleSpace, points: Tensor, sigmas: Tensor, shape: Float[Tensor, "n 2 2"], extent: float, side: int
) -> tuple[Float[Tensor, "n side side"], Float[Tensor, "n side side"]]:
    """Derivatives along x and y of each keypoint's window, brought to a circle by its shape."""
    window = _window(extent * (side + 1) / (side - 1), side + 2).reshape(-1, 2)
    pixels = points[:, None] + sigmas[:, None, None] * (window @ shape.transpose(1, 2))
    height, width = blurred[0].shape[-2:]
    grid = (2 * pixels + 1) / torch.tensor([width, height]) - 1
    level = (2 * torch.log2(0.7 * sigmas)).round().clamp(0, len(blurred) - 1).long()
    patches = torch.empty(len(points), (side + 2) ** 2)
    for index in level.unique().tolist():
        here = level == index
        patches[here] = F.grid_sample(blurred[index], grid[here][None], padding_mode="border", align_corners=False)[
            0, 0
        ]
    patches = patches.reshape(-1, side + 2, side + 2)
    return patches[:, 1:-1, 2:] - patches[:, 1:-1, :-2], patches[:, 2:, 1:-1] - patches[:, :-2, 1:-1]


def _adapted_shapes(blurred: ScaleSpace, points: Tensor, sigmas: Tensor) -> Float[Tensor, "n 2 2"]:
    """Symmetric area-preserving maps from the unit circle to the ellipse in which gradients have no preferred axis."""
    weight = torch.exp(-2 * _window(1.0, SHAPE_SIDE).square().sum(-1))
    shape = torch.eye(2).repeat(len(points), 1, 1)
    for _ in range(SHAPE_ROUNDS):
        dx, dy = _gradients(blurred, points, sigmas, shape, SHAPE_EXTENT, SHAPE_SIDE)
        xx, xy, yy = ((weight * product).sum((1, 2)) for product in (dx * dx, dx * dy, dy * dy))
        moments = torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2) + 1e-3 * torch.eye(2)
        value, axes = torch.linalg.eigh(moments)
        whitened = shape @ axes @ torch.diag_embed(value.rsqrt()) @ axes.transpose(1, 2)
        value, axes = torch.linalg.eigh(whitened @ whitened.transpose(1, 2))
        stretch = (value / value.prod(-1, keepdim=True).sqrt()).sqrt().clamp(1 / MOST_STRETCH, MOST_STRETCH)
        shape = axes @ torch.diag_embed(stretch) @ axes.transpose(1, 2)
    return shape


def _orientations(
    blurred: ScaleSpace, points: Tensor, sigmas: Tensor, shape: Tensor
) -> tuple[Tensor, Float[Tensor, "m 2 2"]]:
    """For each descriptor to make: the index of its keypoint, and the rotation to its dominant gradient."""
    dx, dy = _gradients(blurred, points, sigmas, shape, TURN_EXTENT, TURN_SIDE)
    weight = torch.exp(-_window(TURN_EXTENT, TURN_SIDE).square().sum(-1) / (2 * 1.5**2))
    strength = (weight * torch.hypot(dx, dy)).flatten(1)
    histogram = torch.zeros(len(points), TURN_BINS)
    for bins, share in _shared_bins(torch.atan2(dy, dx).flatten(1), TURN_BINS):
        histogram.scatter_add_(1, bins, strength * share)
    for _ in range(3):
        histogram = (histogram.roll(1, 1) + histogram + histogram.roll(-1, 1)) / 3
    left, right = histogram.roll(1, 1), histogram.roll(-1, 1)
    peaks = torch.where((histogram >= left) & (histogram > right), histogram, torch.zeros_like(histogram))
    height, bins = peaks.topk(2, dim=1)
    chosen = torch.stack([torch.ones(len(points), dtype=torch.bool), height[:, 1] > SECOND_PEAK * height[:, 0]], 1)
    before, middle, after = (x.gather(1, bins) for x in (left, histogram, right))
    offset = 0.5 * (before - after) / (before - 2 * middle + after).clamp(max=-1e-9)
    angle = (bins + offset.clamp(-1, 1))[chosen] * (2 * math.pi / TURN_BINS)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).reshape(-1, 2, 2)
    return chosen.nonzero()[:, 0], turn


def _shared_bins(angles: Tensor, count: int) -> list[tuple[Tensor, Tensor]]:
    """The two circular histogram bins nearest to each angle, with linear shares."""
    position = angles * (count / (2 * math.pi))
    lower = position.floor()
    share = position - lower
    return [(lower.long() % count, 1 - share), ((lower.long() + 1) % count, share)]


def _histograms(blurred: ScaleSpace, points: Tensor, sigmas: Tensor, shape: Tensor) -> Float[Tensor, "n 128"]:
    """Orientation histograms in 4 x 4 cells of each window, as unit RootSIFT vectors."""
    dx, dy = _gradients(blurred, points, sigmas, shape, EXTENT * (SIDE - 1) / SIDE, SIDE)
    weight = torch.exp(-_window(1.0, SIDE).square().sum(-1) / 2)
    strength = weight * torch.hypot(dx, dy)
    maps = torch.zeros(len(points), ANGLES, SIDE, SIDE)
    for bins, share in _shared_bins(torch.atan2(dy, dx), ANGLES):
        maps.scatter_add_(1, bins[:, None], (strength * share)[:, None])
    cell = SIDE // CELLS
    tent = 1 - (torch.arange(2 * cell) + 0.5 - cell).abs() / cell
    pool = torch.zeros(CELLS, SIDE + cell)
    for row in range(CELLS):
        pool[row, row * cell : (row + 2) * cell] = tent
    pool = pool[:, cell // 2 : cell // 2 + SIDE]
    cells = (pool @ maps @ pool.T).flatten(1)
    cells = F.normalize(F.normalize(cells, dim=1).clamp(max=CLIP), dim=1, p=1)
    return cells.clamp(min=0).sqrt()
