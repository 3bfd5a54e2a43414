"""A rectified stereo pair of a procedural scene with its exact disparity."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from unposed.synth.cameras import choose_views, draw_candidates
from unposed.synth.render import draw_worlds, render_worlds
from unposed.synth.textures import procedural_textures
from unposed.synth.truth import covisibility


@dataclass(frozen=True, eq=False)
class StereoPair:
    """Two photos of one camera, the second one taken ``baseline`` to the right, and the truth of the left one."""

    left: UInt8[Tensor, "height width 3"]
    right: UInt8[Tensor, "height width 3"]
    disparity: Float[Tensor, "height width"]
    """Pixels, of hidden points too; 0 is sky."""
    depth: Float[Tensor, "height width"]
    """Metres; 0 is sky."""
    seen: Bool[Tensor, "height width"]
    """Pixels whose point the right photo shows, too."""
    focal: float
    """Pixels."""
    baseline: float
    """Metres."""


def render_stereo(seed: int, kind: str, height: int, width: int, baseline: float = 0.2) -> StereoPair:
    """A random still scene of a ``kind`` of ``layouts.KINDS``, on the CPU, with four colour samples a pixel."""
    generator = torch.Generator().manual_seed(seed)
    textures = procedural_textures()
    world = draw_worlds(1, generator, textures, moving=False, kinds=(kind,))
    candidates = draw_candidates(world, 1, height, width, generator)
    intrinsics, poses = choose_views(world, candidates, 1, height, width, world.used())
    right = poses.clone()
    right[..., :3, 3] += baseline * poses[..., :3, 0]
    both = torch.cat([poses, right], 1)
    views = render_worlds(
        world, intrinsics.repeat(1, 2, 1, 1), both, height, width, textures, world.used(), supersample=2
    )
    photos = (views.images[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).contiguous()
    depth, focal = views.depth[0, 0], float(intrinsics[0, 0, 0, 0])
    disparity = torch.where(depth > 0, focal * baseline / depth, 0.0)
    return StereoPair(photos[0], photos[1], disparity, depth, covisibility(views, 0, 1)[0], focal, baseline)
