"""Cameras for procedural scenes: trajectories of candidates, and a choice of views by their measured overlap."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unposed.geometry.transforms import rigid
from unposed.synth.trace import frames_of, nearest, object_poses
from unposed.synth.worlds import Groups, Worlds, apply

_PROBE = (12, 16)  # height, width of the depth maps that measure overlap
_LEAST_OVERLAP = 0.05


@dataclass(frozen=True, eq=False)
class Candidates:
    """Cameras of which the views of a scene are chosen."""

    intrinsics: Float[Tensor, "scenes candidates 3 3"]
    world_from_camera: Float[Tensor, "scenes candidates 4 4"]
    draws: Float[Tensor, "scenes views 3"]
    """Uniform random numbers for the choice."""

    def to(self, device: torch.device | str) -> "Candidates":
        """The same cameras on another device, without waiting for it."""
        return Candidates(
            self.intrinsics.to(device, non_blocking=True),
            self.world_from_camera.to(device, non_blocking=True),
            self.draws.to(device, non_blocking=True),
        )


def look_at(
    eye: Float[Tensor, "*batch 3"], target: Float[Tensor, "*batch 3"], roll: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 4 4"]:
    """World from camera of an upright camera at ``eye`` looking at ``target``, then rolled (radians) about its axis."""
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    down = torch.tensor([0.0, 1.0, 0.0], device=eye.device).expand_as(forward)
    right = torch.linalg.cross(down, forward)
    sideways = torch.tensor([1.0, 0.0, 0.0], device=eye.device)
    vertical = right.norm(dim=-1, keepdim=True) < 1e-4
    right = torch.nn.functional.normalize(torch.where(vertical, sideways, right), dim=-1)
    down = torch.linalg.cross(forward, right)
    c, s = roll.cos()[..., None], roll.sin()[..., None]
    return rigid(torch.stack([c * right + s * down, c * down - s * right, forward], -1), eye)


def draw_candidates(worlds: Worlds, views: int, height: int, width: int, generator: torch.Generator) -> Candidates:
    """Random cameras along one trajectory per scene: scattered, orbit, walk or stereo rig (all on the CPU)."""
    count, scenes = 3 * views + 4, len(worlds)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(scenes, *shape, generator=generator)

    low, high = worlds.eye[:, :1], worlds.eye[:, 1:]
    aim_low, aim_high = worlds.target[:, :1], worlds.target[:, 1:]
    spread = torch.exp(uniform(math.log(0.08), 0.0, 1, 1))  # share of the room that the cameras use
    anchor = low + (high - low) * uniform(0, 1, 1, 3)
    aim = aim_low + (aim_high - aim_low) * uniform(0, 1, 1, 3)

    eye = anchor + spread * (low + (high - low) * uniform(0, 1, count, 3) - anchor)
    target = aim + spread * (aim_low + (aim_high - aim_low) * uniform(0, 1, count, 3) - aim)

    radius, angle = (anchor - aim)[..., [0, 2]].norm(dim=-1).clamp(min=0.3), uniform(-math.pi, math.pi, 1)
    angle = angle + math.pi * spread[..., 0] * uniform(-1, 1, count)
    orbit = aim + torch.stack(
        [radius * angle.sin(), (anchor - aim)[..., 1].expand(-1, count), radius * angle.cos()], -1
    )

    step = uniform(-1, 1, count, 1)
    heading = torch.nn.functional.normalize(uniform(-1, 1, 1, 3) * torch.tensor([1.0, 0.1, 1.0]), dim=-1)
    stride = spread * (high - low).norm(dim=-1, keepdim=True) / 2
    walk = anchor + stride * step * heading
    walk_target = aim + stride * step * heading * uniform(0, 1, 1, 1)

    rig = anchor + 0.15 * spread * (high - low).norm(dim=-1, keepdim=True) * step * heading
    style = torch.multinomial(torch.tensor([0.4, 0.25, 0.25, 0.1]), scenes, replacement=True, generator=generator)
    row = torch.arange(scenes)
    eye = torch.stack([eye, orbit, walk, rig])[style, row]
    target = torch.stack([target, aim.expand_as(eye), walk_target, rig + (aim - anchor)])[style, row]
    eye = torch.maximum(torch.minimum(eye, high), low)
    clash = (target - eye).norm(dim=-1, keepdim=True) < worlds.near[:, None, None]
    target = torch.where(clash, target + torch.tensor([0.0, 0.0, 1.0]), target)
    tilt = torch.randn(scenes, 1, generator=generator) * torch.where(uniform(0, 1, 1) < 0.15, 0.25, 0.04)
    roll = tilt + 0.03 * torch.randn(scenes, count, generator=generator)
    intrinsics = _draw_intrinsics(scenes, count, height, width, generator)
    return Candidates(intrinsics, look_at(eye, target, roll), torch.rand(scenes, views, 3, generator=generator))


def _draw_intrinsics(scenes: int, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Focal 0.5 to 2 long sides, mostly near 1; half of the principal points off centre; one camera in most scenes."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    share = uniform(scenes, 1, 2).mean(-1)
    share = torch.where(uniform(scenes, 1) < 0.2, uniform(scenes, count, 2).mean(-1), share.expand(-1, count))
    focal = max(height, width) * 0.5 * 4**share
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    jitter = 0.05 * (uniform(scenes, 1, 2) - 0.5) * (uniform(scenes, 1, 1) < 0.5) * torch.tensor([width, height])
    k = torch.zeros(scenes, count, 3, 3)
    k[..., 0, 0], k[..., 1, 1], k[..., 2, 2] = focal, focal, 1
    k[..., :2, 2] = centre + jitter
    return k


def choose_views(
    worlds: Worlds, candidates: Candidates, views: int, height: int, width: int, groups: Groups
) -> tuple[Float[Tensor, "scenes views 3 3"], Float[Tensor, "scenes views 4 4"]]:
    """Intrinsics and poses of the candidates whose overlap fits a target drawn for every view.

    The first view is a random good one. Every other has a random earlier view as partner and a target overlap with it,
    from 5 % to 100 % and above 30 % in 85 % of the draws; the candidate that comes nearest to the target is taken.
    """
    overlap, good, dull = probe(worlds, candidates, height, width, groups)
    scenes, count = good.shape
    row = torch.arange(scenes, device=good.device)
    order = torch.arange(count, device=good.device)
    penalty = torch.where(good, 0.0, 10.0) + torch.where(dull, 0.4, 0.0)
    cost = penalty + 0.01 * order - overlap.mean(-1)
    chosen = [cost.argmin(-1)]
    taken = order == chosen[0][:, None]
    for view in range(1, views):
        draw = candidates.draws[:, view]
        partner = torch.stack(chosen, -1)[row, (draw[:, 0] * view).long()]
        target = _LEAST_OVERLAP + (1 - _LEAST_OVERLAP) * draw[:, 1:2] ** 0.7
        shared = overlap[row, partner]
        cost = (shared - target).abs() + penalty + torch.where(taken, 100.0, 0.0)
        chosen.append((cost + torch.where(shared < _LEAST_OVERLAP, 1.0, 0.0)).argmin(-1))
        taken = taken | (order == chosen[-1][:, None])
    pick = torch.stack(chosen, -1).sort(-1).values
    return candidates.intrinsics[row[:, None], pick], candidates.world_from_camera[row[:, None], pick]


def probe(
    worlds: Worlds, candidates: Candidates, height: int, width: int, groups: Groups
) -> tuple[
    Float[Tensor, "scenes candidates candidates"], Bool[Tensor, "scenes candidates"], Bool[Tensor, "scenes candidates"]
]:
    """Overlap of all pairs of candidates (share of the surface pixels of one seen in the other, the mean of both
    directions); whether a candidate is usable: outside of objects, nothing too near, not mostly sky; whether it is
    dull: fewer than three primitives in sight."""
    scenes, count = candidates.intrinsics.shape[:2]
    rows, columns = _PROBE if width >= height else _PROBE[::-1]
    x = (torch.arange(columns, device=worlds.centre.device) + 0.5) * (width / columns) - 0.5
    y = (torch.arange(rows, device=worlds.centre.device) + 0.5) * (height / rows) - 0.5
    rotation, centre = object_poses(worlds, 1)
    poses = (rotation.expand(-1, count, -1, -1, -1), centre.expand(-1, count, -1, -1))
    frames = frames_of(worlds, poses, candidates.intrinsics, candidates.world_from_camera)
    depth, winner = nearest(frames, x, y, groups)
    depth, seen = (m.view(scenes, count, rows * columns) for m in (depth, winner >= 0))
    inside = (frames.unit_eye.abs().amax(-1) < 1.05) & frames.casts
    near_enough = (depth > worlds.near[:, None, None]).float().mean(-1) > 0.97
    good = near_enough & (seen.float().mean(-1) > 0.4) & ~inside.any(-1).view(scenes, count)

    winner = winner.view(scenes, count, -1)
    sighted = torch.stack([(winner == slot).float().mean(-1) > 0.01 for group in groups for slot in range(*group)]).sum(
        0
    )

    k, pose = candidates.intrinsics, candidates.world_from_camera
    pixels = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).reshape(-1, 2)
    rays = (pixels - k[..., None, :2, 2]) / k[..., 0, 0, None, None]
    local = torch.cat([rays, torch.ones_like(rays[..., :1])], -1) * torch.where(seen, depth, 1.0)[..., None]
    world = apply(pose[:, :, None, :3, :3], local) + pose[:, :, None, :3, 3]
    share = torch.stack(
        [_share_seen(world, seen, depth, k[:, j], pose[:, j], (width, height), j) for j in range(count)], -1
    )
    return (share + share.transpose(1, 2)) / 2, good, sighted < 3


def _share_seen(
    world: Tensor, seen: Tensor, depth: Tensor, k: Tensor, pose: Tensor, size: tuple[int, int], j: int
) -> Float[Tensor, "scenes candidates"]:
    """Share of the surface points of every candidate that candidate ``j`` sees, within 10 % of its depth."""
    rows, columns = _PROBE if size[0] >= size[1] else _PROBE[::-1]
    local = apply(pose[:, None, None, :3, :3].transpose(-1, -2), world - pose[:, None, None, :3, 3])
    z = local[..., 2].clamp(min=1e-6)
    u = (local[..., 0] / z * k[:, 0, 0, None, None] + k[:, 0, 2, None, None] + 0.5) * (columns / size[0])
    v = (local[..., 1] / z * k[:, 1, 1, None, None] + k[:, 1, 2, None, None] + 0.5) * (rows / size[1])
    inside = (u >= 0) & (u < columns) & (v >= 0) & (v < rows) & (local[..., 2] > 1e-3) & seen
    cell: Int[Tensor, "scenes candidates pixels"] = (
        v.clamp(0, rows - 1).long() * columns + u.clamp(0, columns - 1).long()
    )
    there = depth[:, j].gather(1, cell.flatten(1)).view(cell.shape)
    visible = inside & (local[..., 2] < 1.1 * there)
    return visible.float().sum(-1) / seen.float().sum(-1).clamp(min=1)
