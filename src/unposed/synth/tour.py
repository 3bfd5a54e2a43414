"""One scene photographed well: a photographer walks around it in small steps, so that structure from motion works."""

import math
from dataclasses import fields

import torch
from torch import Tensor

from unposed.synth.cameras import Candidates, look_at, probe
from unposed.synth.render import RenderedViews, draw_worlds, render_worlds
from unposed.synth.textures import Textures
from unposed.synth.worlds import Worlds

_ATTEMPTS = 32


def render_tour(
    seed: int,
    kind: str,
    views: int,
    height: int,
    width: int,
    textures: Textures,
    step: float = 12.0,
    supersample: int = 2,
) -> RenderedViews:
    """One still scene (``scenes`` = 1) from an arc of cameras that share one pinhole, on the CPU.

    Args:
        seed: Any integer.
        kind: A key of ``layouts.KINDS``.
        views: Number of photos.
        height: Image height in pixels.
        width: Image width in pixels.
        textures: On the CPU.
        step: Degrees between neighbours around the middle of the scene, as long as they fit on a full turn.
        supersample: Colour samples per pixel and axis.
    """
    generator = torch.Generator().manual_seed(seed)
    world = draw_worlds(1, generator, textures, moving=False, kinds=(kind,))
    intrinsics, poses = _best_arc(world, views, height, width, min(step, 330 / views), generator)
    parts = [  # one view at a time: memory
        render_worlds(
            world,
            intrinsics[:, [view]],
            poses[:, [view]],
            height,
            width,
            textures,
            world.used(),
            supersample,
        )
        for view in range(views)
    ]
    return RenderedViews(**{f.name: torch.cat([getattr(p, f.name) for p in parts], 1) for f in fields(RenderedViews)})


def _best_arc(
    world: Worlds, views: int, height: int, width: int, step: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Of random arcs inside the scene's room for cameras, the one whose neighbours share most and see most."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(_ATTEMPTS, *shape, generator=generator)

    middle, reach = world.eye[0].mean(0), (world.eye[0, 1] - world.eye[0, 0]) / 2
    angle = uniform(-math.pi, math.pi, 1) + math.radians(step) * torch.arange(views)
    level = (uniform(-1, 1, 1) + 0.1 * uniform(-1, 1, views)).clamp(-1, 1)
    radius = uniform(0.5, 0.95, 1) + 0.04 * uniform(-1, 1, views)
    eye = middle + reach * torch.stack([radius * angle.sin(), level, radius * angle.cos()], -1)
    spread = (world.target[0, 1] - world.target[0, 0]) / 2
    aim = world.target[0].mean(0) + spread * (0.3 * uniform(-1, 1, 1, 3) + 0.06 * uniform(-1, 1, views, 3))
    k = torch.eye(3).repeat(_ATTEMPTS, views, 1, 1)
    k[..., 0, 0] = k[..., 1, 1] = max(height, width) * uniform(0.8, 1.1, 1)
    k[..., 0, 2], k[..., 1, 2] = (width - 1) / 2, (height - 1) / 2
    arcs = Candidates(k, look_at(eye, aim, torch.zeros(_ATTEMPTS, views)), torch.zeros(_ATTEMPTS, views, 3))

    repeated = Worlds(**{f.name: getattr(world, f.name).repeat_interleave(_ATTEMPTS, 0) for f in fields(Worlds)})
    overlap, good, dull = probe(repeated, arcs, height, width, world.used())
    shared = overlap.diagonal(1, 1, 2).mean(-1) if views > 1 else torch.zeros(_ATTEMPTS)
    best = int((shared + 5 * good.float().mean(-1) - 2 * dull.float().mean(-1)).argmax())
    return arcs.intrinsics[best : best + 1], arcs.world_from_camera[best : best + 1]
