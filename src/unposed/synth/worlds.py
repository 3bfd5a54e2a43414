"""What a batch of procedural scenes consists of: primitives in fixed slots, their surfaces, a light and a sky.

World frame: metres, y down (gravity is +y), so that a camera with identity pose stands upright. Every primitive is the
image of a unit shape (cube, ball, cylinder about y; all of half-size 1) under half-sizes, a rotation and a translation.
"""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BOXES, ELLIPSOIDS, CYLINDERS = 14, 5, 5
TERRAIN = BOXES + ELLIPSOIDS + CYLINDERS
SLOTS = TERRAIN + 1

Groups = tuple[tuple[int, int], ...]
"""Ranges (first, last + 1) of slots of one shape that are worked on together."""
SHAPES: Groups = ((0, BOXES), (BOXES, BOXES + ELLIPSOIDS), (BOXES + ELLIPSOIDS, TERRAIN), (TERRAIN, SLOTS))
"""One group a shape: few, large operations, for a compiler to fuse."""
SINGLES: Groups = tuple((slot, slot + 1) for slot in range(SLOTS))
"""One group a slot: many small operations with small intermediate results, for running as written."""

SURFACE = (
    "texture", "detail", "mix", "scale", "detail_scale", "cos", "sin", "shift_u", "shift_v", "stretch", "mirror",
    "red", "green", "blue", "specular", "gloss",
    "period_u", "period_v", "fill_u", "fill_v", "niche", "back", "back_tone",
)  # fmt: skip
"""Columns of ``Worlds.surface``.

``texture`` and ``detail`` are texture numbers blended by ``mix``; ``scale`` and ``detail_scale`` are repeats per metre;
``cos, sin, shift_*`` turn and move the pattern; ``stretch`` = 1 lays the texture once over each face; ``mirror`` = 1
repeats it mirrored; colours multiply. ``period_*`` (metres), ``fill_*`` (share of the period) and ``niche`` (metres)
carve a grid of rectangular recesses into the side faces of a box, whose back wall shows texture ``back``.
"""


@dataclass(frozen=True, eq=False)
class Worlds:
    """A batch of scenes, one row each; slots are boxes, then ellipsoids, then cylinders, last the terrain."""

    rotation: Float[Tensor, "scenes slots 3 3"]
    """World from object."""
    centre: Float[Tensor, "scenes slots 3"]
    half: Float[Tensor, "scenes slots 3"]
    """Half-sizes in metres."""
    active: Bool[Tensor, "scenes slots"]
    shell: Bool[Tensor, "scenes slots"]
    """Boxes seen from the inside: rooms. They cast no shadow."""
    instance: Int[Tensor, "scenes slots"]
    """Object number from 1; parts of one object share it."""
    surface: Float[Tensor, "scenes slots columns"]
    """See ``SURFACE``."""
    velocity: Float[Tensor, "scenes slots 3"]
    """Metres per view step; zero for what stands still."""
    spin: Float[Tensor, "scenes slots 3"]
    """Axis-angle (world axes, about the object's centre) per view step."""
    waves: Float[Tensor, "scenes waves 4"]
    """Terrain as ``relief.height`` has it, about the height of the centre of its slot."""
    light: Float[Tensor, "scenes 4"]
    """Point light (position, 1) or directional light (direction towards the light, 0)."""
    light_colour: Float[Tensor, "scenes 3"]
    ambient: Float[Tensor, "scenes 3"]
    sky: Float[Tensor, "scenes 3"]
    """Texture number of the panorama, its turn about the vertical in radians, its brightness."""
    eye: Float[Tensor, "scenes 2 3"]
    """Box (lower and upper corner) in which cameras stand."""
    target: Float[Tensor, "scenes 2 3"]
    """Box of the points that cameras look at."""
    near: Float[Tensor, "scenes"]
    """No surface is nearer to a camera than this, in metres."""

    def __len__(self) -> int:
        return len(self.active)

    def to(self, device: torch.device | str) -> "Worlds":
        """The same scenes on another device, without waiting for it."""
        return Worlds(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def rows(self, start: int, stop: int) -> "Worlds":
        """Scenes ``start`` to ``stop``."""
        return replace(self, **{f.name: getattr(self, f.name)[start:stop] for f in fields(self)})

    def used(self) -> Groups:
        """The ``SINGLES`` that any scene uses; synchronises with the device."""
        return tuple(SINGLES[slot] for slot in self.active.any(0).nonzero().flatten().tolist())


def product(a: Float[Tensor, "*batch n k"], b: Float[Tensor, "*batch k m"]) -> Float[Tensor, "*batch n m"]:
    """Matrix product that keeps full float32 precision even where matrix units are allowed to round (TF32)."""
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


def apply(matrix: Float[Tensor, "*batch n k"], vector: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch n"]:
    """Matrix times vector in full float32 precision."""
    return (matrix * vector.unsqueeze(-2)).sum(-1)
