"""Two photos need no optimisation: poses and depths in closed form (DUSt3R, section 3.3, and its code's PairViewer)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.align.sampling import Side
from unposed.geometry.cameras import pixel_grid
from unposed.geometry.pnp import solve_pnp
from unposed.geometry.transforms import fit_similarity, invert_rigid, rigid, transform_points

CERTAIN = 3.0
"""Pixels with a larger confidence take part in PnP; all where fewer than ``_LEAST_CERTAIN`` have it."""
_LEAST_CERTAIN = 12
PNP_ITERATIONS = 100

Sides = tuple[Side, Side]
"""Maps of the first and of the second view of a pair, in the camera of the first."""


@dataclass(frozen=True, eq=False)
class TwoViews:
    """Two posed cameras with depth; the world is the camera of ``anchor``, in units of the pair that has it first."""

    anchor: int
    world_from_camera: Float[Tensor, "2 4 4"]
    depth: list[Float[Tensor, "height width"]]


def solve_two_views(
    forward: Sides | None,
    backward: Sides | None,
    intrinsics: Float[Tensor, "2 3 3"],
    certain_confidence: float = CERTAIN,
    pnp_iterations: int = PNP_ITERATIONS,
) -> TwoViews | None:
    """Cameras and depths from the surer of the predictions for (view 0, view 1) and for (view 1, view 0).

    The camera that is second in it comes from PnP of its own pixels and points; None where that fails.
    """
    if forward is None or (backward is not None and _score(backward) >= _score(forward)):
        chosen, other, anchor = backward, forward, 1
    else:
        chosen, other, anchor = forward, backward, 0
    assert chosen is not None, "at least one prediction"
    second, moved = 1 - anchor, chosen[1]
    confidence = moved.confidence if other is None else torch.maximum(moved.confidence, other[0].confidence)
    certain = confidence > certain_confidence
    if int(certain.sum()) < _LEAST_CERTAIN:
        certain = torch.ones_like(certain)
    pixels = pixel_grid(*certain.shape)[certain]
    found = solve_pnp(pixels, moved.points[certain], intrinsics[second], max_iterations=pnp_iterations, method="opencv")
    if found is None:
        return None
    poses, depth = [torch.eye(4)] * 2, [chosen[0].points[..., 2]] * 2
    poses[second] = found.world_from_camera
    depth[second] = transform_points(invert_rigid(found.world_from_camera), moved.points)[..., 2]
    return TwoViews(anchor, torch.stack(poses), depth)


def fit_frame(sides: Sides, targets: list[Float[Tensor, "height width 3"]]) -> Float[Tensor, "4 4"]:
    """Similarity that moves a pair's maps onto the world points of its two views best, by weighted least squares."""
    source = torch.cat([side.points.reshape(-1, 3) for side in sides])
    target = torch.cat([points.reshape(-1, 3) for points in targets])
    weights = torch.cat([side.weight.flatten() for side in sides]) + 1e-6
    scale, rotation, translation = fit_similarity(source, target, weights)
    return rigid(scale * rotation, translation)


def _score(sides: Sides) -> float:
    return float(sides[0].confidence.mean() * sides[1].confidence.mean())
