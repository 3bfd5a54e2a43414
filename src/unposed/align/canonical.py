"""Canonical view of a photo: one pointmap, confidence and relative depth from all its pairs (MASt3R-SfM, section 3.3).

Every pair (i, j) predicts the points of view i in camera i, so a view has as many maps of itself as pairs. Their
confidence-weighted mean is its canonical pointmap. Blocks of ``stride`` x ``stride`` pixels hang on one anchor, their
middle pixel: only anchor depths are optimised later, and a pixel keeps the ratio of its depth to its anchor's.
All of it is sums over maps: a map is added and forgotten, so memory does not grow with the number of pairs.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unposed.geometry.focal import focal_from_pointmap

STRIDE = 8
"""Side of a block of pixels that share an anchor."""
FOCAL_BOUNDS = (0.5, 3.5)
"""Limits of the focal, as multiples of the one that sees the longer side under 60 degrees."""
_LEAST_CONFIDENCE = 0.999
_LEAST_RADIUS = 1e-8
_SCALE_PIXELS = 4000

Mode = Literal["avg-angle", "avg-reldepth"]


@dataclass(frozen=True, eq=False)
class CanonicalView:
    """What all pairs of a photo agree on, in its own camera."""

    points: Float[Tensor, "height width 3"]
    """Confidence-weighted mean of the maps; not finite where no map had a finite point."""
    confidence: Float[Tensor, "height width"]
    """Mean of the weights (confidence minus 0.999), each counted by itself; 0 where no map had a finite point."""
    relative_depth: Float[Tensor, "height width"]
    """Ratio of every pixel's depth to that of its block's anchor."""
    stride: int
    scales: Float[Tensor, "maps"]
    """Factor by which each map was multiplied, in the order in which they were added."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of anchors; pixels beyond the last whole block belong to its anchors."""
        return self.points.shape[0] // self.stride, self.points.shape[1] // self.stride

    @property
    def anchor_depth(self) -> Float[Tensor, "rows columns"]:
        """z-depth of the anchors; see ``usable_anchors``."""
        return _at_anchors(self.points[..., 2], self.stride)

    @property
    def usable_anchors(self) -> Bool[Tensor, "rows columns"]:
        """Anchors in front of the camera whose block has a scale of its own: finite and positive depths and ratios."""
        depth, ratio = self.anchor_depth, _at_anchors(self.relative_depth, self.stride)
        return depth.isfinite() & (depth > 0) & ratio.isfinite() & (ratio > 0)

    def anchors_of(self, pixels: Int[Tensor, "n 2"]) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
        """Anchor (row-major index) of pixels (x, y), and the ratio of their depth to its.

        The ratio is nan or not positive for pixels and anchors that no use can be made of.
        """
        rows, columns = self.grid
        x, y = pixels.long().unbind(-1)
        row = (y // self.stride).clamp(max=rows - 1)
        column = (x // self.stride).clamp(max=columns - 1)
        half = self.stride // 2
        own = self.relative_depth[y, x]
        anchor = self.relative_depth[row * self.stride + half, column * self.stride + half]
        return row * columns + column, own / anchor

    def depth_on(
        self, anchor_depth: Float[Tensor, "anchors"], zoom: Float[Tensor, ""] | float = 1.0
    ) -> Float[Tensor, "height width"]:
        """Depth of every pixel from depths of the anchors (row-major); ``zoom`` as in :func:`depth_ratio`.

        Not finite, or not positive, where the canonical view has no usable depth.
        """
        spread = spread_anchors(self.relative_depth, self.stride)
        return depth_ratio(self.relative_depth / spread, zoom) * anchor_depth[self.anchor_of_pixels]

    @property
    def anchor_of_pixels(self) -> Int[Tensor, "height width"]:
        """Index (row-major) of every pixel's anchor."""
        rows, columns = self.grid
        height, width = self.confidence.shape
        row = (torch.arange(height) // self.stride).clamp(max=rows - 1)
        column = (torch.arange(width) // self.stride).clamp(max=columns - 1)
        return row[:, None] * columns + column

    def focal(
        self, principal_point: Float[Tensor, "2"], method: Literal["weiszfeld", "median"] = "weiszfeld"
    ) -> Float[Tensor, ""]:
        """Focal in pixels that the canonical pointmap implies."""
        points = self.points
        if not bool(points.isfinite().all()):
            points = torch.where(points.isfinite().all(-1, keepdim=True), points, torch.zeros_like(points))
        return focal_from_pointmap(points, principal_point, method=method, bounds=FOCAL_BOUNDS)


class CanonicalSums:
    """Running sums over the maps of one photo, from which its canonical view follows.

    With ``own_scales``, predictions of different pairs are only up to scale: every map after the first is multiplied
    by the median, over pixels, of the ratio of the mean depth so far to its own before it is added, which a wrong half
    of a map cannot spoil. The photo's unit is then that of its first map, and ``scales`` tells the others; alignment
    finds one size a photo, so that units need not agree between photos.
    """

    def __init__(
        self, size: tuple[int, int], stride: int = STRIDE, mode: Mode = "avg-angle", own_scales: bool = False
    ) -> None:
        if min(size) < stride:
            raise ValueError(f"a photo of {size[1]} x {size[0]} pixels has no anchors {stride} pixels apart")
        self.stride, self.mode, self.own_scales = stride, mode, own_scales
        self._points = torch.zeros(*size, 3)
        self._weight, self._square = torch.zeros(size), torch.zeros(size)
        self._ratio, self._radius = torch.zeros(size), torch.zeros(size)
        self._scales: list[float] = []

    def add(self, points: Float[Tensor, "height width 3"], confidence: Float[Tensor, "height width"]) -> None:
        """Take a map of the photo in its own camera in; pixels that are not finite have no say."""
        weight = confidence - _LEAST_CONFIDENCE
        valid = points.isfinite().all(-1) & weight.isfinite()
        if not bool(valid.all()):
            points = torch.where(valid[..., None], points, torch.zeros_like(points))
            weight = torch.where(valid, weight, torch.zeros_like(weight))
        scale = self._scale_of(points[..., 2], weight) if self.own_scales and self._scales else 1.0
        points = points if scale == 1.0 else scale * points
        self._scales.append(scale)
        self._points += weight[..., None] * points
        self._weight += weight
        self._square += weight.square()
        anchor = spread_anchors(points, self.stride)
        nearest = anchor[..., 2].clamp(min=torch.finfo(torch.float32).eps)
        if self.mode == "avg-angle":
            radius = (points[..., :2] - anchor[..., :2]).norm(dim=-1).clamp(min=_LEAST_RADIUS)
            self._radius += radius
            self._ratio += weight * ((points[..., 2] - nearest) / radius).atan()
        else:
            self._ratio += weight * points[..., 2] / nearest

    def finish(self) -> CanonicalView:
        """The canonical view of all maps so far; at least one."""
        points = self._points / self._weight[..., None]
        ratio = self._ratio / self._weight
        if self.mode == "avg-angle":
            anchor = spread_anchors(points, self.stride)[..., 2]
            ratio = 1 + self._radius / len(self._scales) * ratio.tan() / anchor
        confidence = (self._square / self._weight).nan_to_num(0.0)
        return CanonicalView(points, confidence, ratio, self.stride, torch.tensor(self._scales))

    def _scale_of(self, depth: Float[Tensor, "height width"], weight: Float[Tensor, "height width"]) -> float:
        """Median ratio of the mean depth so far to a new map's, where both are in front and surer than the average."""
        step = max(1, int((depth.numel() / _SCALE_PIXELS) ** 0.5))
        mean = (self._points[..., 2] / self._weight)[::step, ::step]
        depth, certain = depth[::step, ::step], (weight * self._weight)[::step, ::step].sqrt()
        both = (depth > 0) & (mean > 0) & mean.isfinite()
        if not bool(both.any()):
            return 1.0
        sure = both & (certain >= certain[both].median())
        return float((mean[sure] / depth[sure]).median())


def depth_ratio(offset: Tensor, zoom: Tensor | float) -> Tensor:
    """Ratio of a pixel's depth to its anchor's when the focal is not the one it was measured with.

    ``offset`` is the ratio at the canonical focal and ``zoom`` that focal over the present one.
    """
    return 1 + (offset - 1) * zoom


def spread_anchors(values: Float[Tensor, "height width *rest"], stride: int) -> Float[Tensor, "height width *rest"]:
    """The value of every pixel's anchor at the pixel."""
    height, width = values.shape[:2]
    row, column = (
        (torch.arange(length) // stride).clamp(max=length // stride - 1) * stride + stride // 2
        for length in (height, width)
    )
    return values[row[:, None], column]


def _at_anchors(values: Float[Tensor, "height width"], stride: int) -> Float[Tensor, "rows columns"]:
    rows, columns = values.shape[0] // stride, values.shape[1] // stride
    return values[: rows * stride, : columns * stride][stride // 2 :: stride, stride // 2 :: stride]
