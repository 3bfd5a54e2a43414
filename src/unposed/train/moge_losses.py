"""Losses of MoGe and MoGe-2 for affine-invariant pointmaps, masks, normals and metric scales (MoGe, section 3.2).

Ground truth is non-finite where it is unknown. Pictures come one at a time where a loss aligns, as in the papers.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from unposed.geometry.masked_resize import masked_nearest, take
from unposed.geometry.robust_alignment import align_points_scale_xyz_shift, align_points_scale_z_shift

Points = Float[Tensor, "height width 3"]
Map = Float[Tensor, "height width"]
_EPSILON = 1e-7
_FEWEST = 32
"""Pixels that a local patch needs."""
_NEIGHBOURS = 64
"""Random neighbours that tell how much of a patch is there."""


class AlignedLoss(NamedTuple):
    """A loss after alignment; everything but the loss is without gradient."""

    loss: Float[Tensor, ""]
    scale: Float[Tensor, ""]
    """Aligning scale of the whole map (global loss), which is what MoGe-2's metric scale learns; 0 where it failed."""
    truncated_error: Float[Tensor, ""]
    """Mean distance relative to depth (or to the patch), at most 1 each; for the log."""
    delta: Float[Tensor, ""]
    """Share of pixels whose relative distance is below 1; for the log."""


def smooth(error: Tensor, beta: float) -> Tensor:
    """L1 distance, quadratic below ``beta``."""
    if beta == 0:
        return error
    return torch.where(error < beta, 0.5 * error.square() / beta, error - 0.5 * beta)


def global_loss(
    prediction: Points,
    truth: Points,
    *,
    align_resolution: int = 32,
    beta: float = 0.0,
    truncation: float | None = 1.0,
    sparsity_aware: bool = False,
) -> AlignedLoss:
    """Distance of whole pointmaps after the best scale and z shift, relative to depth."""
    mask = truth.isfinite().all(-1)
    truth = torch.where(mask[..., None], truth, 1.0)
    kept, pixels = masked_nearest(mask, (align_resolution, align_resolution))
    source, target = (take(points, pixels, channels=True).flatten(0, 1)[None] for points in (prediction, truth))
    weights = kept.flatten()[None] / target[..., 2].clamp(min=1e-2)
    scale, shift = (values[0] for values in align_points_scale_z_shift(source, target, weights, truncation))
    valid = scale > 0
    scale, shift = torch.where(valid, scale, 0.0), torch.where(valid, shift, 0.0)
    weight = mask * valid / truth[..., 2].clamp(min=1e-5)
    weight = torch.minimum(weight, 10 * _mean(weight, mask))
    aligned = scale * prediction + shift
    loss = smooth((aligned - truth).abs() * weight[..., None], beta).mean()
    if sparsity_aware:
        loss = loss / (_density(mask, kept) + _EPSILON)
    error = (aligned.detach() - truth).norm(dim=-1) / truth[..., 2]
    return AlignedLoss(loss, scale.detach(), _mean(error.clamp(max=1), mask), _mean((error < 1).float(), mask))


def local_loss(
    prediction: Points,
    truth: Points,
    focal: Float[Tensor, ""] | float,
    anchors: Int64[Tensor, "patches 2"],
    *,
    level: int,
    align_resolution: int,
    global_scale: Float[Tensor, ""] | None = None,
    beta: float = 0.0,
    truncation: float | None = 1.0,
    sparsity_aware: bool = False,
) -> AlignedLoss:
    """Distance of the points within spheres about ``anchors`` (row, column), each aligned by its own scale and shift.

    ``focal`` is that of the true camera, 1 / sqrt(1 / fx^2 + 1 / fy^2) of the normalised intrinsics. Spheres look
    1 / ``level`` of the picture's diagonal wide. With ``global_scale``, patches whose scale is ten times off are left
    out.
    """
    mask = truth.isfinite().all(-1)
    truth = torch.where(mask[..., None], truth, 1.0)
    patches = _Patches.around(anchors, truth, mask, focal, level)
    if len(patches.radius) == 0:
        nothing = torch.full((), torch.nan, device=truth.device)
        return AlignedLoss((0 * prediction).sum(), torch.zeros_like(nothing), nothing, nothing)
    kept, pixels = masked_nearest(patches.mask, (align_resolution, align_resolution))
    predicted, true = (points.flatten(0, 1)[patches.pixels] for points in (prediction, truth))
    source, target = (take(points, pixels, channels=True).flatten(1, 2) for points in (predicted, true))
    weights = kept.flatten(1) / (patches.radius[:, None] + _EPSILON)
    scale, shift = align_points_scale_xyz_shift(source, target, weights, truncation)
    valid = scale > 0
    if global_scale is not None:
        ratio = scale.detach() / global_scale
        valid = (global_scale > 0) & (ratio > 0.1) & (ratio < 10)
    floor = 0.1 * _mean(mask.float(), mask) / (_mean(1 / truth[..., 2].clamp(min=_EPSILON), mask) + _EPSILON)
    weight = (patches.mask & valid[:, None, None]) / torch.maximum(true[..., 2], floor)
    scale, shift = torch.where(valid, scale, 0.0), torch.where(valid[:, None], shift, 0.0)
    aligned = scale[:, None, None, None] * predicted + shift[:, None, None]
    losses = smooth((aligned - true).abs() * weight[..., None], beta).mean((1, 2, 3))
    if sparsity_aware:
        losses = losses / (_density(patches.mask, kept) + _EPSILON)
    error = (aligned.detach() - true).norm(dim=-1) / patches.radius[:, None, None]
    counted = patches.mask & valid[:, None, None]
    return AlignedLoss(
        losses.sum() / len(anchors),
        scale.detach().mean(),
        _mean(error.clamp(max=1), counted),
        _mean((error < 1).float(), counted),
    )


class _Patches(NamedTuple):
    """Windows about anchors and the pixels in them that lie within the sphere."""

    pixels: Int64[Tensor, "patches side side"]
    """Row-major pixels of the picture; pixel 0 outside of it."""
    mask: Bool[Tensor, "patches side side"]
    radius: Float[Tensor, "patches"]
    """Of the sphere, in units of the truth."""

    @classmethod
    def around(cls, anchors: Tensor, truth: Points, mask: Tensor, focal: Tensor | float, level: int) -> "_Patches":
        """Patches with enough pixels."""
        height, width = mask.shape
        reach = patch_radius(level, height, width)
        offsets = torch.arange(-reach, reach + 1, device=truth.device)
        rows = anchors[:, :1, None] + offsets[:, None]
        columns = anchors[:, 1:, None] + offsets
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        pixels = torch.where(inside, rows * width + columns, 0)
        centre = truth[anchors[:, 0], anchors[:, 1]]
        radius = sphere_radius(centre[:, 2], focal, level)
        distance = (truth.flatten(0, 1)[pixels] - centre[:, None, None]).norm(dim=-1)
        seen = inside & mask.flatten()[pixels] & (distance <= radius[:, None, None])
        enough = seen.sum((1, 2)) >= _FEWEST
        return cls(pixels[enough], seen[enough], radius[enough])


def patch_radius(level: int, height: int, width: int) -> int:
    """Half the side of a patch's window, pixels."""
    return math.ceil(0.5 / level * math.hypot(height, width))


def sphere_radius(depth: Tensor, focal: Tensor | float, level: int) -> Tensor:
    """Radius of the spheres at some depth that look 1 / ``level`` of the diagonal wide."""
    return 0.5 / level / focal * depth


def sample_anchors(
    truth: Points, focal: Float[Tensor, ""] | float, level: int, count: int, stream: torch.Generator | None = None
) -> Int64[Tensor, "patches 2"]:
    """Random anchors, rarer where much of the sphere is seen, so that every surface has its share (MoGe-2)."""
    mask = truth.isfinite().all(-1)
    if not mask.any():
        return torch.zeros(0, 2, dtype=torch.int64, device=truth.device)
    height, width = mask.shape
    reach = patch_radius(level, height, width)
    shape = (2, height, width, _NEIGHBOURS)
    offsets = torch.randint(-reach, reach + 1, shape, generator=stream, device=truth.device)
    radius = sphere_radius(truth[..., 2], focal, level)
    weight = anchor_weights(truth, mask, radius, offsets[0], offsets[1])
    chosen = weight.flatten().multinomial(count, replacement=True, generator=stream)
    return torch.stack([chosen // width, chosen % width], -1)


def anchor_weights(
    points: Points,
    mask: Bool[Tensor, "height width"],
    radius: Map,
    row_offsets: Int64[Tensor, "height width tests"],
    column_offsets: Int64[Tensor, "height width tests"],
) -> Map:
    """Probability of every pixel to be an anchor: one over the number of tested neighbours in its sphere."""
    height, width = mask.shape
    rows = torch.arange(height, device=mask.device)[:, None, None] + row_offsets
    columns = torch.arange(width, device=mask.device)[None, :, None] + column_offsets
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    distance = (points[rows, columns] - points[:, :, None]).norm(dim=-1)
    near = inside & mask[rows, columns] & (distance <= radius[..., None])
    weight = mask / near.sum(-1).clamp(min=1)
    return weight / weight.sum().clamp(min=_EPSILON)


def normal_loss(prediction: Points, truth: Points) -> Float[Tensor, ""]:
    """Angles between the normals of the four corners of every 2 x 2 block of pixels (MoGe)."""
    mask = truth.isfinite().all(-1)
    truth = torch.where(mask[..., None], truth, 1.0)
    corners = [(slice(None, -1), slice(None, -1)), (slice(None, -1), slice(1, None))]
    corners += [(slice(1, None), slice(1, None)), (slice(1, None), slice(None, -1))]  # clockwise
    total = prediction.new_zeros(())
    for k in range(4):
        before, here, after = corners[k - 1], corners[k], corners[(k + 1) % 4]
        predicted, true = (
            torch.linalg.cross(points[before] - points[here], points[after] - points[here])
            for points in (prediction, truth)
        )
        known = mask[before] & mask[here] & mask[after]
        total = total + _angle_cost(predicted, true, known, lowest=1.0)
    return total / (4 * max(mask.shape))


def edge_loss(prediction: Points, truth: Points) -> Float[Tensor, ""]:
    """Angles between the differences of neighbouring points, along rows and along columns (MoGe-2)."""
    mask = truth.isfinite().all(-1)
    truth = torch.where(mask[..., None], truth, 1.0)
    total = prediction.new_zeros(())
    for axis in (0, 1):
        known = mask.narrow(axis, 1, mask.shape[axis] - 1) & mask.narrow(axis, 0, mask.shape[axis] - 1)
        total = total + _angle_cost(prediction.diff(dim=axis), truth.diff(dim=axis), known, lowest=0.1)
    return total / (2 * max(mask.shape))


def _angle_cost(a: Tensor, b: Tensor, known: Tensor, lowest: float) -> Float[Tensor, ""]:
    """Mean over all places of the angle between vectors, where it is known, in [``lowest``, 90] degrees."""
    angle = torch.atan2(torch.linalg.cross(a, b).norm(dim=-1) + 1e-12, (a * b).sum(-1))
    angle = angle.clamp(math.radians(lowest), math.radians(90))
    return (known * smooth(angle, math.radians(3))).mean()


def normal_map_loss(
    prediction: Float[Tensor, "height width 3"], truth: Float[Tensor, "height width 3"]
) -> Float[Tensor, ""]:
    """Squared angle between predicted and true normals (MoGe-2)."""
    mask = truth.isfinite().all(-1)
    a, b = F.normalize(prediction, dim=-1), F.normalize(torch.where(mask[..., None], truth, 1.0), dim=-1)
    cosine = (a * b).sum(-1, keepdim=True)
    sine = torch.minimum((a - cosine * b).norm(dim=-1), (b - cosine * a).norm(dim=-1)) + 1e-8
    return (mask * torch.atan2(sine, cosine[..., 0]).square()).mean()


def mask_l2_loss(score: Map, finite: Bool[Tensor, "height width"], infinite: Bool[Tensor, "height width"]) -> Tensor:
    """Squared distance of the score from 1 at pixels with depth and from 0 at those without (MoGe)."""
    return (infinite * score.square() + finite * (1 - score).square()).mean()


def mask_bce_loss(
    probability: Map, finite: Bool[Tensor, "height width"], infinite: Bool[Tensor, "height width"]
) -> Tensor:
    """Cross entropy of the probability; unknown pixels cost nothing (MoGe-2)."""
    cost = F.binary_cross_entropy(probability, finite.float(), reduction="none")
    return (cost * (finite | infinite)).mean()


def metric_scale_loss(prediction: Float[Tensor, "batch"], truth: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """Squared difference of log scales, 0 where the true one is not positive (MoGe-2)."""
    known = truth > 0
    return torch.where(known, (prediction.log() - torch.where(known, truth, 1.0).log()).square(), 0.0)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over a mask, 0 where it is empty."""
    return (values * mask).mean() / (mask.float().mean() + _EPSILON)


def _density(mask: Bool[Tensor, "*batch height width"], kept: Bool[Tensor, "*batch rows columns"]) -> Tensor:
    """How much sparser a map is than what is left of it after a resize that looks for valid pixels."""
    return mask.float().mean((-2, -1)) / kept.float().mean((-2, -1))
