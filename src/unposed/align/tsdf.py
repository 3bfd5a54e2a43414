"""Refine depth maps by a truncated signed distance that all views agree on (MASt3R-SfM, its code's optional last step).

A sample of a pixel's ray is compared with the depth map of every view that sees it; the mean of the signed distances,
weighted by the exponential of the confidence, is zero on the surface. The best of some random samples around the
present depth is kept.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.geometry.cameras import backproject, pixel_grid, project
from unposed.geometry.transforms import invert_rigid, transform_points

SAMPLES = 1000
_BATCH = 1 << 20
"""Points looked up at a time: bounds the memory."""


class DepthFusion:
    """Signed distances to the surface that posed depth maps describe together."""

    def __init__(
        self,
        intrinsics: Float[Tensor, "views 3 3"],
        world_from_camera: Float[Tensor, "views 4 4"],
        depth: Sequence[Float[Tensor, "height width"]],
        confidence: Sequence[Float[Tensor, "height width"]],
        truncation: float,
    ) -> None:
        """``truncation`` (world units): a point further than it behind a view's surface is hidden from that view."""
        self._intrinsics, self._poses, self._truncation = intrinsics, world_from_camera, truncation
        self._depth, self._confidence = depth, confidence

    def distance(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Bool[Tensor, "n"]]:
        """Distance in front of the surface (negative: behind it) of world points, and whether any view sees them.

        It is 0 where none does. Only the side behind the surface is truncated, as in the reference.
        """
        total, weight = points.new_zeros(len(points)), points.new_zeros(len(points))
        cameras = zip(self._intrinsics, self._poses, self._depth, self._confidence, strict=True)
        for k, pose, depth, confidence in cameras:
            local = transform_points(invert_rigid(pose), points)
            height, width = depth.shape
            pixel = project(local, k).round()
            inside = (pixel >= 0).all(-1) & (pixel[:, 0] < width) & (pixel[:, 1] < height) & (local[:, 2] > 0)
            rows = inside.nonzero()[:, 0]
            x, y = pixel[rows].long().unbind(-1)
            signed = depth[y, x] - local[rows, 2]
            seen = signed >= -self._truncation
            sure = confidence[y, x].exp()
            total.index_add_(0, rows[seen], (sure * signed)[seen])
            weight.index_add_(0, rows[seen], sure[seen])
        visible = weight > 0
        return torch.where(visible, total / weight.clamp(min=1e-30), 0.0), visible

    def refined(
        self, view: int, generator: torch.Generator | None = None, samples: int = SAMPLES
    ) -> Float[Tensor, "height width"]:
        """The view's depth map after :meth:`best_of` samples drawn about one truncation nearer, as published."""
        height, width = self._depth[view].shape
        rows = max(1, _BATCH // (width * samples))
        blocks = []
        for start in range(0, height, rows):
            count = min(rows, height - start)
            noise = torch.randn(count, width, samples, generator=generator)
            blocks.append(self.best_of(view, noise, start))
        return torch.cat(blocks)

    def best_of(
        self, view: int, noise: Float[Tensor, "rows width samples"], first_row: int = 0
    ) -> Float[Tensor, "rows width"]:
        """Of ``depth + (noise - 1) * truncation``, at each pixel of some rows, the sample nearest to the surface.

        A pixel none of whose samples any view sees keeps its depth.
        """
        rows, width, samples = noise.shape
        depth = self._depth[view][first_row : first_row + rows]
        tried = depth[..., None] + (noise - 1) * self._truncation
        pixels = pixel_grid(self._depth[view].shape[0], width)[first_row : first_row + rows]
        pixels = pixels[:, :, None].expand(-1, -1, samples, -1).reshape(-1, 2)
        local = backproject(pixels.to(depth), tried.flatten(), self._intrinsics[view])
        signed, visible = self.distance(transform_points(self._poses[view], local))
        cost = torch.where(visible, signed.abs(), torch.inf).reshape(tried.shape)
        best = tried.gather(-1, cost.argmin(-1, keepdim=True)).squeeze(-1)
        return torch.where(visible.reshape(tried.shape).any(-1), best, depth)
