"""Matches of pointmaps to a fraction of a pixel, by the local plane of the matched points."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.views import Matches, PairPrediction

_FURTHEST = 1.5  # pixels: a point that lies further from the matched pixel is not on its surface


def refine_on_pointmap(matches: Matches, prediction: PairPrediction) -> Matches:
    """Move ``points_b`` to where the pointmap of view j comes closest to the point of the pixel in view i.

    Nearest neighbours in space end on whole pixels of view j, up to half a pixel wrong. The pointmap around them is
    taken as a plane, spanned by the steps to the neighbouring pixels (the shorter of both ways, which stays on the
    surface at its border). Matches that the plane would move far stay as they are.
    """
    if len(matches.confidence) == 0:
        return matches
    xa, ya = matches.points_a.round().long().unbind(-1)
    xb, yb = matches.points_b.round().long().unbind(-1)
    offset = prediction.points_i[ya, xa].double() - prediction.points_j[yb, xb].double()
    across, down = (_step(prediction.points_j, xb, yb, dx, dy) for dx, dy in ((1, 0), (0, 1)))
    basis = torch.stack([across, down], -1)
    normal = basis.transpose(-1, -2) @ basis
    solvable = torch.linalg.det(normal) > 1e-6 * normal.diagonal(dim1=-2, dim2=-1).prod(-1)
    normal = torch.where(solvable[:, None, None], normal, torch.eye(2, dtype=normal.dtype))
    shift = torch.linalg.solve(normal, basis.transpose(-1, -2) @ offset[..., None])[..., 0]
    on_surface = solvable & (shift.abs().amax(-1) <= _FURTHEST)
    moved = matches.points_b + torch.where(on_surface[:, None], shift, 0.0).to(matches.points_b)
    return replace(matches, points_b=moved)


def _step(points: Float[Tensor, "height width 3"], x: Tensor, y: Tensor, dx: int, dy: int) -> Tensor:
    """How the point changes from one pixel to the next in a direction; both ways are tried, the shorter one counts."""
    height, width, _ = points.shape
    here = points[y, x].double()
    forward = points[(y + dy).clamp(max=height - 1), (x + dx).clamp(max=width - 1)].double() - here
    backward = here - points[(y - dy).clamp(min=0), (x - dx).clamp(min=0)].double()
    at_end = (x + dx >= width) | (y + dy >= height)
    at_start = (x < dx) | (y < dy)
    shorter = (forward.norm(dim=-1) <= backward.norm(dim=-1)) & ~at_end | at_start
    return torch.where(shorter[:, None], forward, backward)
