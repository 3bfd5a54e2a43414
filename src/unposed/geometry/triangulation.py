"""Points of every pixel of a posed view, from its dense matches in posed neighbours (MASt3R, section 4.5)."""

import torch
from jaxtyping import Float
from torch import Tensor

MIN_VALID_SHARE = 0.3
"""Pixels that not more than this share of the neighbours match are unknown."""


def triangulate_pixels(
    projection_a: Float[Tensor, "*batch 3 4"],
    projection_b: Float[Tensor, "*batch 3 4"],
    pixels_a: Float[Tensor, "*batch 2"],
    pixels_b: Float[Tensor, "*batch 2"],
) -> Float[Tensor, "*batch 3"]:
    """World points whose projections come closest to matched pixels, by linear least squares of the four equations.

    Computes in float64; pixels must be finite.
    """
    rows = []
    for projection, pixels in ((projection_a, pixels_a), (projection_b, pixels_b)):
        projection, pixels = projection.double(), pixels.double()
        rows.append(pixels[..., None] * projection[..., 2:, :] - projection[..., :2, :])
    system = torch.cat(torch.broadcast_tensors(*rows), -2)
    return torch.linalg.lstsq(system[..., :3], -system[..., 3:]).solution[..., 0].to(pixels_a)


def triangulate_with_neighbours(
    intrinsics: Float[Tensor, "batch views 3 3"],
    camera_from_world: Float[Tensor, "batch views 4 4"],
    matches: Float[Tensor, "batch neighbours height width 5"],
    min_valid_share: float = MIN_VALID_SHARE,
) -> tuple[
    Float[Tensor, "batch height width 3"], Float[Tensor, "batch height width"], Float[Tensor, "batch height width"]
]:
    """World points of view 0, their depths in it, and the summed confidence.

    ``matches``: for every pixel of view 0 and every neighbour (views 1, 2, ...) x, y in view 0, x, y in the neighbour,
    confidence; NaN where there is none. Each point is the mean of the neighbours' by confidence. Pixels with too few
    matches have NaN points and depths and no confidence.
    """
    projections = (intrinsics @ camera_from_world[:, :, :3])[:, :, None, None]
    valid = matches.isfinite().all(-1)
    filled = torch.where(valid[..., None], matches, 0.0)
    points = triangulate_pixels(projections[:, :1], projections[:, 1:], filled[..., :2], filled[..., 2:4])
    weight = filled[..., 4:]
    mean = (points * weight).sum(1) / weight.sum(1)
    few = valid.sum(1) <= int(matches.shape[1] * min_valid_share)
    mean = mean.masked_fill(few[..., None], torch.nan)
    pose = camera_from_world[:, 0, None, None].to(mean)
    depth = (pose[..., 2, :3] * mean).sum(-1) + pose[..., 2, 3]
    return mean, depth, weight.sum(1)[..., 0].masked_fill(few, 0.0)
