"""Batches of procedural scenes with exact ground truth, on the CPU or a GPU, from one seed."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from unposed.synth.builder import WorldBuilder
from unposed.synth.cameras import choose_views, draw_candidates
from unposed.synth.layouts import KINDS
from unposed.synth.shade import shade
from unposed.synth.textures import Textures, procedural_textures
from unposed.synth.trace import Frames, frames_of, nearest, object_poses, surface_at
from unposed.synth.worlds import SHAPES, SINGLES, Groups, Worlds

_CPU_PIXELS = 1 << 17  # pixels rendered at once on the CPU: intermediate maps stay in the cache


@dataclass(frozen=True, eq=False)
class RenderedViews:
    """Views of procedural scenes and everything that is true about them. Metres; world y is down."""

    images: Float[Tensor, "scenes views 3 height width"]
    """Display-encoded RGB in [0, 1], without photometric augmentation."""
    depth: Float[Tensor, "scenes views height width"]
    """z-depth at pixel centres; 0 where there is no surface (sky)."""
    normals: Float[Tensor, "scenes views height width 3"]
    """Unit surface normal towards the camera, world frame; 0 for sky."""
    instance: Int[Tensor, "scenes views height width"]
    """int32 object number from 1; 0 for sky."""
    moving: Bool[Tensor, "scenes views height width"]
    """Pixels on objects that move."""
    primitive: Int[Tensor, "scenes views height width"]
    """int32 primitive number (a column of ``world_from_primitive``); -1 for sky."""
    intrinsics: Float[Tensor, "scenes views 3 3"]
    """Pixels; the centre of the top-left pixel is (0, 0)."""
    world_from_camera: Float[Tensor, "scenes views 4 4"]
    world_from_primitive: Float[Tensor, "scenes views primitives 4 4"]
    """Pose of every primitive at the time of every view."""


def render_scenes(
    seed: int,
    scenes: int,
    views: int,
    height: int,
    width: int,
    *,
    textures: Textures | None = None,
    device: torch.device | str = "cpu",
    moving: bool = False,
    kinds: tuple[str, ...] = tuple(KINDS),
    supersample: int = 1,
    compiled: bool = False,
) -> RenderedViews:
    """Random scenes, each seen from several views.

    The same arguments give the same images on the same device; scenes and candidate cameras are drawn on the CPU and
    agree between devices.

    Args:
        seed: Any integer.
        scenes: Number of scenes.
        views: Views of each scene.
        height: Image height in pixels.
        width: Image width in pixels.
        textures: On ``device``; ``None`` for patterns made without any file.
        device: Where to render.
        moving: Let some objects move from view to view.
        kinds: Kinds of scenes to draw from, keys of ``layouts.KINDS``.
        supersample: Colour samples per pixel and axis.
        compiled: Compile the per-pixel work (``torch.compile``); pays on a GPU for many batches of one size.
    """
    textures = procedural_textures(device=device) if textures is None else textures
    generator = torch.Generator().manual_seed(seed)
    worlds = draw_worlds(scenes, generator, textures, moving, kinds)
    candidates = draw_candidates(worlds, views, height, width, generator)
    on_cpu = torch.device(device).type == "cpu"
    step = max(1, _CPU_PIXELS // (views * height * width * supersample**2)) if on_cpu else scenes
    parts = []
    for start in range(0, scenes, step):
        rows = worlds.rows(start, start + step)
        groups = rows.used() if on_cpu else SINGLES
        some = slice(start, start + step)
        chosen = type(candidates)(
            candidates.intrinsics[some], candidates.world_from_camera[some], candidates.draws[some]
        )
        rows, chosen = rows.to(device), chosen.to(device)
        intrinsics, world_from_camera = choose_views(rows, chosen, views, height, width, groups)
        if compiled:
            groups = SHAPES
        parts.append(
            render_worlds(rows, intrinsics, world_from_camera, height, width, textures, groups, supersample, compiled)
        )
    return parts[0] if len(parts) == 1 else _concatenate(parts)


def draw_worlds(
    scenes: int, generator: torch.Generator, textures: Textures, moving: bool, kinds: tuple[str, ...]
) -> Worlds:
    """Random scenes of the kinds asked for, in random order, on the CPU."""
    weights = torch.tensor([KINDS[kind][1] for kind in kinds])
    which = torch.multinomial(weights, scenes, replacement=True, generator=generator)
    made, order = [], []
    for i, kind in enumerate(kinds):
        rows = (which == i).nonzero().flatten()
        if len(rows):
            builder = WorldBuilder(len(rows), generator, textures)
            KINDS[kind][0](builder)
            made.append(builder.build(moving))
            order.append(rows)
    back = torch.cat(order).argsort()
    return Worlds(**{f.name: torch.cat([getattr(g, f.name) for g in made])[back] for f in fields(Worlds)})


def render_worlds(
    worlds: Worlds,
    intrinsics: Float[Tensor, "scenes views 3 3"],
    world_from_camera: Float[Tensor, "scenes views 4 4"],
    height: int,
    width: int,
    textures: Textures,
    groups: Groups = SINGLES,
    supersample: int = 1,
    compiled: bool = False,
) -> RenderedViews:
    """Render given scenes with given cameras; everything on one device. ``groups`` must cover every active slot."""
    paint = _compiled_paint() if compiled else _trace_and_shade
    views = intrinsics.shape[1]
    poses = object_poses(worlds, views)
    frames = frames_of(worlds, poses, intrinsics, world_from_camera)
    lighting = tuple(
        value.repeat_interleave(views, 0, output_size=len(worlds) * views)
        for value in (worlds.light, worlds.light_colour, worlds.ambient, worlds.sky)
    )
    images, depth, normal, winner = paint(frames, textures, lighting, height, width, groups)
    if supersample > 1:
        fine = intrinsics * torch.tensor([supersample, supersample, 1.0], device=intrinsics.device)[:, None]
        fine[..., :2, 2] += (supersample - 1) / 2
        frames = frames_of(worlds, poses, fine, world_from_camera)
        size = (height * supersample, width * supersample)
        images = paint(frames, textures, lighting, *size, groups)[0]
        images = F.avg_pool2d(images.permute(0, 3, 1, 2), supersample).permute(0, 2, 3, 1)

    def per_scene(value: Tensor) -> Tensor:
        return value.unflatten(0, (len(worlds), views))

    hit = winner >= 0
    slot = winner.clamp(min=0).long().view(len(worlds), -1)
    moves = ((worlds.velocity != 0) | (worlds.spin != 0)).any(-1)
    world_from_primitive = torch.zeros(*poses[1].shape[:3], 4, 4, device=depth.device)
    world_from_primitive[..., :3, :3], world_from_primitive[..., :3, 3] = poses
    world_from_primitive[..., 3, 3] = 1
    return RenderedViews(
        images=per_scene(images.permute(0, 3, 1, 2)),
        depth=per_scene(torch.where(hit, depth, 0)),
        normals=per_scene(torch.where(hit[..., None], torch.stack(normal, -1), 0)),
        instance=per_scene(torch.where(hit, worlds.instance.gather(1, slot).view(hit.shape), 0)),
        moving=per_scene(hit & moves.gather(1, slot).view(hit.shape)),
        primitive=per_scene(winner),
        intrinsics=intrinsics,
        world_from_camera=world_from_camera,
        world_from_primitive=world_from_primitive,
    )


@lru_cache(maxsize=1)
def _compiled_paint() -> Callable:
    return torch.compile(_trace_and_shade, fullgraph=True, dynamic=False)


def _trace_and_shade(
    frames: Frames, textures: Textures, lighting: tuple, height: int, width: int, groups: Groups
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
    """Colours ``(frames, height, width, 3)``, depth, normal and winning slot of every pixel."""
    x = torch.arange(width, device=frames.eye.device, dtype=torch.float32)
    y = torch.arange(height, device=frames.eye.device, dtype=torch.float32)
    first, winner = nearest(frames, x, y, groups)
    hit = winner >= 0
    surface = surface_at(frames, x, y, torch.where(hit, first, 1.0), winner, groups)
    colours = shade(frames, surface, hit, textures, lighting, x, y, groups)
    return _soften_edges(colours, winner, surface.normal), surface.depth, surface.normal, winner


def _soften_edges(
    colours: Float[Tensor, "frames height width 3"], winner: Tensor, normal: tuple[Tensor, Tensor, Tensor]
) -> Float[Tensor, "frames height width 3"]:
    """Blend pixels on outlines and creases with their neighbours (binomial 3 x 3): no stairs along edges."""
    right = winner[:, :, 1:] != winner[:, :, :-1]
    down = winner[:, 1:] != winner[:, :-1]
    for n in normal:
        right = right | ((n[:, :, 1:] - n[:, :, :-1]).abs() > 0.5)
        down = down | ((n[:, 1:] - n[:, :-1]).abs() > 0.5)
    edge = F.pad(right, (0, 1)) | F.pad(right, (1, 0)) | F.pad(down, (0, 0, 0, 1)) | F.pad(down, (0, 0, 1, 0))
    padded = F.pad(colours.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate").permute(0, 2, 3, 1)
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    blurred = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
    return torch.where(edge[..., None], blurred, colours)


def _concatenate(parts: list[RenderedViews]) -> RenderedViews:
    return RenderedViews(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(RenderedViews)})
