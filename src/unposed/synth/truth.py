"""Ground truth between two rendered views: world points, scene flow, optical flow, covisibility."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.synth.render import RenderedViews
from unposed.synth.worlds import apply, product


def world_points(rendered: RenderedViews, view: int) -> Float[Tensor, "scenes height width 3"]:
    """World position of the surface at every pixel; the camera centre for sky."""
    depth, k = rendered.depth[:, view], rendered.intrinsics[:, view]
    height, width = depth.shape[1:]
    y, x = torch.meshgrid(
        torch.arange(height, device=depth.device), torch.arange(width, device=depth.device), indexing="ij"
    )
    ray_x = (x - k[:, 0, 2, None, None]) / k[:, 0, 0, None, None]
    ray_y = (y - k[:, 1, 2, None, None]) / k[:, 1, 1, None, None]
    local = torch.stack([ray_x, ray_y, torch.ones_like(ray_x)], -1) * depth[..., None]
    pose = rendered.world_from_camera[:, view, None, None]
    return apply(pose[..., :3, :3], local) + pose[..., :3, 3]


def scene_flow(rendered: RenderedViews, i: int, j: int) -> Float[Tensor, "scenes height width 3"]:
    """World displacement of the surface at every pixel of view ``i`` from its time to the time of view ``j``."""
    before, after = rendered.world_from_primitive[:, i], rendered.world_from_primitive[:, j]
    rotation = product(after[..., :3, :3], before[..., :3, :3].transpose(-1, -2))
    table = torch.cat([rotation.flatten(-2), before[..., :3, 3], after[..., :3, 3]], -1)
    slot = rendered.primitive[:, i].clamp(min=0).long()
    pixel = table.gather(1, slot.flatten(1)[..., None].expand(-1, -1, 15)).view(*slot.shape, 15)
    turn, start, end = pixel[..., :9].unflatten(-1, (3, 3)), pixel[..., 9:12], pixel[..., 12:]
    points = world_points(rendered, i)
    moved = apply(turn, points - start) + end
    return torch.where(rendered.moving[:, i, ..., None], moved - points, 0)


def project_points(
    rendered: RenderedViews, points: Float[Tensor, "scenes *points 3"], view: int
) -> tuple[Float[Tensor, "scenes *points 2"], Float[Tensor, "scenes *points"]]:
    """Pixels and z-depths of world points in a view; pixels mean nothing where the depth is not positive."""
    extra = (1,) * (points.dim() - 2)
    pose = rendered.world_from_camera[:, view].view(-1, *extra, 4, 4)
    k = rendered.intrinsics[:, view].view(-1, *extra, 3, 3)
    local = apply(pose[..., :3, :3].transpose(-1, -2), points - pose[..., :3, 3])
    z = local[..., 2]
    homogeneous = apply(k, local / z.clamp(min=1e-6)[..., None])
    return homogeneous[..., :2], z


def optical_flow(rendered: RenderedViews, i: int, j: int) -> Float[Tensor, "scenes height width 2"]:
    """Pixel displacement from view ``i`` to view ``j`` of every surface point, moving objects included; 0 for sky.

    Occluded points have a flow too: see ``covisibility``. Points behind camera ``j`` get NaN.
    """
    points = world_points(rendered, i)
    pixels, z = project_points(rendered, points + scene_flow(rendered, i, j), j)
    height, width = z.shape[1:]
    y, x = torch.meshgrid(torch.arange(height, device=z.device), torch.arange(width, device=z.device), indexing="ij")
    flow = torch.where((z > 1e-6)[..., None], pixels - torch.stack([x, y], -1), torch.nan)
    return torch.where((rendered.primitive[:, i] >= 0)[..., None], flow, 0)


def covisibility(rendered: RenderedViews, i: int, j: int) -> Bool[Tensor, "scenes height width"]:
    """Pixels of view ``i`` whose surface point is inside view ``j`` and not hidden there; sky is never covisible.

    A point counts as seen where it lies on the tangent plane of the surface at the nearest pixel of view ``j`` within
    1 % of its depth, and within 10 % of its depth of that surface point.
    """
    points = world_points(rendered, i) + scene_flow(rendered, i, j)
    pixels, z = project_points(rendered, points, j)
    height, width = z.shape[1:]
    column, row = pixels.round().unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (z > 1e-6)
    address = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long().flatten(1)[..., None]
    target = world_points(rendered, j).flatten(1, 2).gather(1, address.expand(-1, -1, 3)).view(points.shape)
    normal = rendered.normals[:, j].flatten(1, 2).gather(1, address.expand(-1, -1, 3)).view(points.shape)
    surface = rendered.primitive[:, j].flatten(1).gather(1, address[..., 0]).view(z.shape) >= 0
    offset = points - target
    on_surface = ((offset * normal).sum(-1).abs() < 0.01 * z) & (offset.norm(dim=-1) < 0.1 * z)
    return inside & surface & on_surface & (rendered.primitive[:, i] >= 0)
