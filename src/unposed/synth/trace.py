"""Ray casting of the primitives of ``Worlds``: nearest hit, exact surface point and normal, shadow. No state.

All functions work on pixel grids ``(frames, height, width)``; a frame is one view of one scene. Loops run over slots
only. Distances along a ray are in units of its direction, whose camera z is 1: they are z-depths.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.synth.relief import march, slope
from unposed.synth.worlds import BOXES, ELLIPSOIDS, SURFACE, TERRAIN, Groups, Worlds, apply, product

Vector = tuple[Tensor, Tensor, Tensor]
_TINY = 1e-12  # keeps reciprocals finite for rays parallel to a face
_FAR = 1e9


@dataclass(frozen=True, eq=False)
class Frames:
    """Everything of a batch of views that a ray needs; ``frames`` = scenes x views, views fastest."""

    unit_from_world: Float[Tensor, "frames slots 3 3"]
    unit_from_pixel: Float[Tensor, "frames slots 3 3"]
    unit_eye: Float[Tensor, "frames slots 3"]
    world_from_pixel: Float[Tensor, "frames 3 3"]
    """Direction of the ray through pixel (x, y, 1), camera z = 1."""
    eye: Float[Tensor, "frames 3"]
    rotation: Float[Tensor, "frames slots 3 3"]
    centre: Float[Tensor, "frames slots 3"]
    half: Float[Tensor, "frames slots 3"]
    active: Bool[Tensor, "frames slots"]
    casts: Bool[Tensor, "frames slots"]
    surface: Float[Tensor, "frames slots columns"]
    waves: Float[Tensor, "frames waves 4"]


class Surface(NamedTuple):
    """The visible surface of every pixel; everything ``(frames, height, width)``."""

    depth: Tensor
    point: Vector
    """World position."""
    normal: Vector
    """World direction, towards the camera."""
    across: Tensor
    """Metres along the first axis of the face (or of the wall of a recess)."""
    along: Tensor
    """Metres along its second axis, downwards on side faces."""
    half_across: Tensor
    half_along: Tensor
    in_niche: Tensor
    """On a wall of a recess, the back wall included."""
    on_back: Tensor
    """On the back wall of a recess."""
    columns: dict[str, Tensor]
    """The primitive's ``SURFACE`` columns."""


def object_poses(worlds: Worlds, views: int) -> tuple[Float[Tensor, "s v p 3 3"], Float[Tensor, "s v p 3"]]:
    """Rotation and centre of every primitive at every view: uniform motion, one step per view."""
    step = torch.arange(views, device=worlds.centre.device, dtype=torch.float32)[None, :, None, None]
    turn = matrix_from_axis_angle(step * worlds.spin[:, None])
    return product(turn, worlds.rotation[:, None].expand_as(turn)), worlds.centre[:, None] + step * worlds.velocity[
        :, None
    ]


def frames_of(
    worlds: Worlds,
    poses: tuple[Tensor, Tensor],
    intrinsics: Float[Tensor, "scenes views 3 3"],
    world_from_camera: Float[Tensor, "scenes views 4 4"],
) -> Frames:
    """Put the object poses and the cameras into the form that the rays need."""
    views = intrinsics.shape[1]

    def per_frame(value: Tensor) -> Tensor:
        return value[:, None].expand(-1, views, *value.shape[1:]).flatten(0, 1)

    rotation, centre = (pose.flatten(0, 1) for pose in poses)
    half, active = per_frame(worlds.half), per_frame(worlds.active)
    unit_from_world = rotation.transpose(-1, -2) / half[..., None]
    world_from_pixel = product(world_from_camera[..., :3, :3], _pixel_rays(intrinsics)).flatten(0, 1)
    eye = world_from_camera[..., :3, 3].flatten(0, 1)
    return Frames(
        unit_from_world=unit_from_world,
        unit_from_pixel=product(unit_from_world, world_from_pixel[:, None].expand_as(unit_from_world)),
        unit_eye=apply(unit_from_world, eye[:, None] - centre),
        world_from_pixel=world_from_pixel,
        eye=eye,
        rotation=rotation,
        centre=centre,
        half=half,
        active=active,
        casts=active & ~per_frame(worlds.shell) & (torch.arange(active.shape[1], device=eye.device) != TERRAIN),
        surface=per_frame(worlds.surface),
        waves=per_frame(worlds.waves),
    )


def _pixel_rays(intrinsics: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Inverse of K for cameras without skew."""
    inverse = torch.zeros_like(intrinsics)
    inverse[..., 0, 0], inverse[..., 1, 1] = 1 / intrinsics[..., 0, 0], 1 / intrinsics[..., 1, 1]
    inverse[..., 0, 2] = -intrinsics[..., 0, 2] / intrinsics[..., 0, 0]
    inverse[..., 1, 2] = -intrinsics[..., 1, 2] / intrinsics[..., 1, 1]
    inverse[..., 2, 2] = 1
    return inverse


def directions(matrix: Float[Tensor, "*batch 3 3"], x: Float[Tensor, "width"], y: Float[Tensor, "height"]) -> Vector:
    """The three components of ``matrix @ (x, y, 1)`` on the pixel grid, each ``(*batch, height, width)``."""
    m = matrix[..., None, None]
    dx, dy, dz = (m[..., i, 0, :, :] * x + (m[..., i, 1, :, :] * y[:, None] + m[..., i, 2, :, :]) for i in range(3))
    return dx, dy, dz


def interval(slot: int, origin: Vector, direction: Vector) -> tuple[Tensor, Tensor]:
    """Where a ray enters and leaves the unit shape of a slot; enters after it leaves where it misses."""
    if slot < BOXES:
        return _slabs(origin, direction)
    if slot < BOXES + ELLIPSOIDS:
        return _round(origin, direction)
    near, far = _round((origin[0], origin[2]), (direction[0], direction[2]))
    low, high = _slabs((origin[1],), (direction[1],))
    return torch.maximum(near, low), torch.minimum(far, high)


def _slabs(origin: tuple[Tensor, ...], direction: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Interval of a ray between the planes -1 and 1 of every axis given."""
    lows, highs = [], []
    for o, d in zip(origin, direction, strict=True):
        inverse = 1 / (d + _TINY)
        a, b = (-1 - o) * inverse, (1 - o) * inverse
        lows.append(torch.minimum(a, b))
        highs.append(torch.maximum(a, b))
    return reduce(torch.maximum, lows), reduce(torch.minimum, highs)


def _round(origin: tuple[Tensor, ...], direction: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Interval of a ray in the unit ball (or disc) of the axes given, by way of the closest point: no cancellation."""
    squared = _sum(d * d for d in direction) + _TINY
    middle = -_sum(o * d for o, d in zip(origin, direction, strict=True)) / squared
    inside = 1 - _sum((o + middle * d).square() for o, d in zip(origin, direction, strict=True))
    reach = torch.where(inside > 0, (inside.clamp(min=0) / squared).sqrt(), -_FAR)
    return middle - reach, middle + reach


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, terms)


def nearest(
    frames: Frames, x: Tensor, y: Tensor, groups: Groups
) -> tuple[Float[Tensor, "frames height width"], Int[Tensor, "frames height width"]]:
    """z-depth and slot of the first primitive hit; ``_FAR`` and -1 where there is none. Recesses not carved yet."""
    depth = torch.full((len(frames.eye), len(y), len(x)), _FAR, device=x.device)
    winner = torch.full(depth.shape, -1, dtype=torch.int32, device=x.device)
    for start, stop in groups:
        active = frames.active[:, start:stop, None, None]
        if start == TERRAIN:
            rays = directions(frames.world_from_pixel, x, y)
            entry = march(frames.waves, frames.centre[:, start, 1], frames.eye, rays, _FAR)
            entry, slot = torch.where(active[:, 0], entry, _FAR), torch.full_like(winner, start)
        else:
            ox, oy, oz = frames.unit_eye[:, start:stop, :, None, None].unbind(2)
            near, far = interval(start, (ox, oy, oz), directions(frames.unit_from_pixel[:, start:stop], x, y))
            entry = torch.where((far > near) & (far > 0) & active, torch.where(near > 0, near, far), _FAR)
            entry, slot = _first(entry, start)
        closer = entry < depth
        depth, winner = torch.where(closer, entry, depth), torch.where(closer, slot, winner)
    return depth, winner


def _first(entry: Float[Tensor, "frames group height width"], start: int) -> tuple[Tensor, Tensor]:
    """Smallest entry over a group of slots, and its slot."""
    if entry.shape[1] == 1:
        return entry[:, 0], torch.full(entry[:, 0].shape, start, dtype=torch.int32, device=entry.device)
    closest, place = entry.min(1)
    return closest, (place + start).to(torch.int32)


def blocked(
    frames: Frames, point: Vector, light: Float[Tensor, "frames 4"], groups: Groups
) -> Bool[Tensor, "frames height width"]:
    """Whether something stands between a point and the light (position, 1) or (direction, 0). Terrain casts none."""
    point_light = light[:, None, 3, None, None]
    limit = torch.where(point_light > 0, 1.0, _FAR)
    shadow = torch.zeros(point[0].shape, dtype=torch.bool, device=light.device)
    px, py, pz = (component[:, None] for component in point)
    for start, stop in groups:
        if start == TERRAIN:
            continue
        matrix = frames.unit_from_world[:, start:stop]
        centre = apply(matrix, frames.centre[:, start:stop])[..., None, None]
        to_light = apply(matrix, light[:, None, :3])[..., None, None]
        m = matrix[..., None, None]
        axes = [m[:, :, i, 0] * px + m[:, :, i, 1] * py + m[:, :, i, 2] * pz for i in range(3)]
        ox, oy, oz = (axes[i] - centre[:, :, i] for i in range(3))
        dx, dy, dz = (to_light[:, :, i] - point_light * axes[i] for i in range(3))
        near, far = interval(start, (ox, oy, oz), (dx, dy, dz))
        hit = (far > near) & (far > 1e-5) & (near < limit) & frames.casts[:, start:stop, None, None]
        shadow = shadow | hit.any(1)
    return shadow


def surface_at(frames: Frames, x: Tensor, y: Tensor, depth: Tensor, winner: Tensor, groups: Groups) -> Surface:
    """Exact point, normal and face coordinates of the winning primitive, its recesses carved."""
    slot = winner.clamp(min=0)
    rotation, centre, half, columns = _gather(frames, slot)
    direction = directions(frames.world_from_pixel, x, y)
    eye = frames.eye[:, :, None, None].unbind(1)
    offset = tuple(eye[i] + depth * direction[i] - centre[i] for i in range(3))
    local, ray = _turn_back(rotation, offset), _turn_back(rotation, direction)
    relief = None
    if any(start == TERRAIN for start, _ in groups):
        relief = slope(frames.waves[:, None, None], offset[0] + centre[0], offset[2] + centre[2])
    normal, axis_x, axis_y = _normal(slot, local, half, relief)

    half_across, half_along = torch.where(axis_x, half[2], half[0]), torch.where(axis_y, half[2], half[1])
    face = _Face(
        across=torch.where(axis_x, local[2], local[0]),
        along=torch.where(axis_y, local[2], local[1]),
        half_across=half_across,
        half_along=half_along,
        ray_across=torch.where(axis_x, ray[2], ray[0]),
        ray_along=ray[1],
        ray_in=torch.where(axis_x, ray[0], ray[2]),
    )
    niche = _carve(face, (slot < BOXES) & ~axis_y, columns)
    wall = (niche.side != 0) | (niche.sill != 0)
    normal = (
        torch.where(wall, torch.where(axis_x, 0, niche.side), normal[0]),
        torch.where(wall, niche.sill, normal[1]),
        torch.where(wall, torch.where(axis_x, niche.side, 0), normal[2]),
    )
    facing = normal[0] * ray[0] + normal[1] * ray[1] + normal[2] * ray[2]
    flip = torch.where(facing > 0, -1.0, 1.0)
    r = rotation
    nx, ny, nz = (flip * (r[i][0] * normal[0] + r[i][1] * normal[1] + r[i][2] * normal[2]) for i in range(3))
    depth = depth + niche.onward
    px, py, pz = (eye[i] + depth * direction[i] for i in range(3))
    return Surface(
        depth=depth,
        point=(px, py, pz),
        normal=(nx, ny, nz),
        across=niche.across,
        along=niche.along,
        half_across=half_across,
        half_along=half_along,
        in_niche=niche.inside,
        on_back=niche.inside & ~wall,
        columns=columns,
    )


def _normal(
    slot: Tensor, local: Vector, half: list[Tensor], relief: tuple[Tensor, Tensor] | None
) -> tuple[Vector, Tensor, Tensor]:
    """Normal in object axes (either side), and whether the face is seen along the object's x axis or its y axis.

    Round shapes count as seen along the axis that their normal is nearest to. ``relief``: the slopes of the terrain.
    """
    unit = tuple(local[i] / half[i] for i in range(3))
    is_box, is_ball, is_ground = slot < BOXES, (slot >= BOXES) & (slot < BOXES + ELLIPSOIDS), slot == TERRAIN
    on_cap = (slot >= BOXES + ELLIPSOIDS) & ~is_ground & (unit[1].abs() > torch.hypot(unit[0], unit[2]))
    gx, gy, gz = unit[0] / half[0], torch.where(is_ball, unit[1] / half[1], 0), unit[2] / half[2]
    if relief is not None:
        gx, gy, gz = (torch.where(is_ground, relief[0], gx), torch.where(is_ground, 1.0, gy),
                      torch.where(is_ground, relief[1], gz))  # fmt: skip
    gradient = (gx, gy, gz)
    steepness = torch.sqrt(gx**2 + gy**2 + gz**2) + _TINY
    size = [torch.where(is_box, unit[i].abs(), gradient[i].abs() * half[i]) for i in range(3)]
    lies = on_cap | is_ground
    axis_x = (size[0] >= size[1]) & (size[0] >= size[2]) & ~lies
    axis_y = (~axis_x & (size[1] >= size[2])) | lies
    axes = (axis_x, axis_y, ~axis_x & ~axis_y)
    flat = is_box | on_cap
    nx, ny, nz = (torch.where(flat, torch.where(axes[i], unit[i].sign(), 0), gradient[i] / steepness) for i in range(3))
    return (nx, ny, nz), axis_x, axis_y


class _Face(NamedTuple):
    """Where a ray meets a face: position, half-size and ray in the two axes of the face, ray into it."""

    across: Tensor
    along: Tensor
    half_across: Tensor
    half_along: Tensor
    ray_across: Tensor
    ray_along: Tensor
    ray_in: Tensor


class _Niche(NamedTuple):
    """What a ray finds behind a face: itself, where there is no opening."""

    inside: Tensor
    onward: Tensor
    """Ray parameter from the face to the wall of the recess."""
    side: Tensor
    """Normal of a wall across the face, -1 or 1; 0 elsewhere."""
    sill: Tensor
    """The same along the face."""
    across: Tensor
    along: Tensor


def _carve(face: _Face, carvable: Tensor, columns: dict[str, Tensor]) -> _Niche:
    """A ray that meets a face inside an opening goes on to the walls of that recess, a box of its own."""
    cell_u, open_u = _cell(face.across, face.half_across, columns["period_u"], columns["fill_u"])
    cell_v, open_v = _cell(face.along, face.half_along, columns["period_v"], columns["fill_v"])
    inside = carvable & (columns["niche"] > 0) & (cell_u.abs() < open_u) & (cell_v.abs() < open_v)
    to_side = (torch.copysign(open_u, face.ray_across) - cell_u) / (face.ray_across + _TINY)
    to_sill = (torch.copysign(open_v, face.ray_along) - cell_v) / (face.ray_along + _TINY)
    to_back = columns["niche"] / (face.ray_in.abs() + _TINY)
    onward = torch.where(inside, torch.minimum(torch.minimum(to_side, to_sill), to_back), 0)
    on_back = inside & (to_back <= onward)
    on_side = inside & ~on_back & (to_side <= onward)
    on_sill = inside & ~on_back & ~on_side
    inwards = onward * face.ray_in
    return _Niche(
        inside=inside,
        onward=onward,
        side=torch.where(on_side, -torch.copysign(torch.ones_like(onward), face.ray_across), 0),
        sill=torch.where(on_sill, -torch.copysign(torch.ones_like(onward), face.ray_along), 0),
        across=torch.where(on_side, inwards, face.across + onward * face.ray_across),
        along=torch.where(on_sill, inwards, face.along + onward * face.ray_along),
    )


def _turn_back(rotation: list[list[Tensor]], v: tuple[Tensor, ...]) -> Vector:
    """Object components of a world vector."""
    x, y, z = (rotation[0][i] * v[0] + rotation[1][i] * v[1] + rotation[2][i] * v[2] for i in range(3))
    return x, y, z


def _cell(position: Tensor, half: Tensor, period: Tensor, fill: Tensor) -> tuple[Tensor, Tensor]:
    """Position in the nearest cell of a face divided into whole cells, and half the opening of a cell; metres."""
    cells = (2 * half / period).round().clamp(min=1)
    size = 2 * half / cells
    turn = (position + half) / size
    inside = turn.clamp(min=0).floor().minimum(cells - 1)
    return (turn - inside - 0.5) * size, 0.5 * size * fill


def _gather(frames: Frames, slot: Tensor) -> tuple[list[list[Tensor]], list[Tensor], list[Tensor], dict[str, Tensor]]:
    """Pose, size and surface columns of the primitive of every pixel, each a contiguous map."""
    count, slots = frames.active.shape
    parts = [frames.rotation.flatten(-2), frames.centre, frames.half, frames.surface]
    table = torch.cat(parts, -1).flatten(0, 1).T.contiguous()
    base = torch.arange(count, device=slot.device, dtype=torch.int32)[:, None, None] * slots
    values = table.index_select(1, (base + slot).reshape(-1)).view(-1, *slot.shape).unbind(0)
    rotation = [list(values[3 * i : 3 * i + 3]) for i in range(3)]
    return rotation, list(values[9:12]), list(values[12:15]), dict(zip(SURFACE, values[15:], strict=True))
