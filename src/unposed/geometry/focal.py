"""Focal length of a pinhole camera from a pointmap in its own frame (DUSt3R, section 3.3)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.geometry.cameras import pixel_grid

WEISZFELD_ITERATIONS = 10
REFERENCE_FIELD_OF_VIEW = 60.0
"""Degrees; ``bounds`` of the focal are multiples of the focal that sees the longer side under this angle."""


def focal_from_rays(
    pixels: Float[Tensor, "*batch n 2"],
    points: Float[Tensor, "*batch n 3"],
    weights: Float[Tensor, "*batch n"] | None = None,
    iterations: int = WEISZFELD_ITERATIONS,
) -> Float[Tensor, "*batch"]:
    """Focal f (pixels) that minimises ``sum w |pixel - f (x, y) / z|``, by Weiszfeld's algorithm.

    ``pixels`` are relative to the principal point; points that have no finite slope (z = 0) count as slope 0.
    """
    slopes = (points[..., :2] / points[..., 2:]).nan_to_num(0.0, 0.0, 0.0)
    dot_pixels, dot_slopes = (slopes * pixels).sum(-1), slopes.square().sum(-1)
    base = torch.ones_like(dot_pixels) if weights is None else weights
    focal = (base * dot_pixels).sum(-1) / (base * dot_slopes).sum(-1)
    for _ in range(iterations):
        distance = (pixels - focal[..., None, None] * slopes).norm(dim=-1)
        w = base / distance.clamp(min=1e-8)
        focal = (w * dot_pixels).sum(-1) / (w * dot_slopes).sum(-1)
    return focal


def focal_from_pointmap(
    points: Float[Tensor, "*batch height width 3"],
    principal_point: Float[Tensor, "*batch 2"],
    weights: Float[Tensor, "*batch height width"] | None = None,
    method: Literal["weiszfeld", "median"] = "weiszfeld",
    bounds: tuple[float, float] = (0.0, float("inf")),
) -> Float[Tensor, "*batch"]:
    """Focal (pixels, square) of cameras that see ``points``, given in their own frames, at their pixels.

    ``weiszfeld`` is the robust L1 fit of ``focal_from_rays``; ``median`` takes the lower median of the votes
    ``u z / x`` and ``v z / y`` and ignores ``weights``. ``bounds`` clip the result, as multiples of the focal with a
    field of view of 60 degrees over the longer side.
    """
    height, width = points.shape[-3:-1]
    pixels = pixel_grid(height, width, points.device, points.dtype) - principal_point[..., None, None, :]
    if method == "median":
        votes = pixels * points[..., 2:] / points[..., :2]
        focal = votes.flatten(-3).nanmedian(-1).values
    else:
        flat_weights = None if weights is None else weights.flatten(-2)
        focal = focal_from_rays(pixels.flatten(-3, -2), points.flatten(-3, -2), flat_weights)
    base = max(height, width) / (2 * torch.tan(torch.deg2rad(torch.tensor(REFERENCE_FIELD_OF_VIEW / 2))).item())
    return focal.clamp(bounds[0] * base, bounds[1] * base)
