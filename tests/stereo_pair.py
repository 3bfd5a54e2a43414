"""A rectified pair of photos of a procedural scene with its exact disparity."""

from dataclasses import dataclass
from functools import cache

import torch

from unposed.synth import covisibility, procedural_textures
from unposed.synth.cameras import choose_views, draw_candidates
from unposed.synth.render import draw_worlds, render_worlds

BASELINE = 0.2
"""Metres."""


@dataclass(frozen=True, eq=False)
class StereoPair:
    left: torch.Tensor
    """Height x width x 3, uint8."""
    right: torch.Tensor
    disparity: torch.Tensor
    depth: torch.Tensor
    """Metres; 0 is sky."""
    seen: torch.Tensor
    """Pixels of the left photo that the right one shows, too."""
    focal: float


@cache
def stereo_pair(seed: int = 1, height: int = 240, width: int = 320) -> StereoPair:
    generator = torch.Generator().manual_seed(seed)
    textures = procedural_textures()
    world = draw_worlds(1, generator, textures, moving=False, kinds=("tabletop",))
    candidates = draw_candidates(world, 1, height, width, generator)
    intrinsics, poses = choose_views(world, candidates, 1, height, width, world.used())
    right = poses.clone()
    right[..., :3, 3] += BASELINE * poses[..., :3, 0]
    both = torch.cat([poses, right], 1)
    views = render_worlds(world, intrinsics.repeat(1, 2, 1, 1), both, height, width, textures, world.used(), 2)
    photos = (views.images[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).contiguous()
    depth, focal = views.depth[0, 0], float(intrinsics[0, 0, 0, 0])
    disparity = torch.where(depth > 0, focal * BASELINE / depth, 0.0)
    return StereoPair(photos[0], photos[1], disparity, depth, covisibility(views, 0, 1)[0], focal)
