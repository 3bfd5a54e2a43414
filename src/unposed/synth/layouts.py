"""Kinds of scenes, outdoors: streets, terrain, vistas; and the table of all kinds. Metres; up is -y."""

from collections.abc import Callable

import torch
from torch import Tensor

from unposed.synth.builder import Material, Recess, WorldBuilder
from unposed.synth.interiors import clutter, planes, room, tabletop, thin, vector
from unposed.synth.relief import height


def street(b: WorldBuilder) -> None:
    """A street between facades with windows, with cars, posts and trees."""
    zero, half_width = torch.zeros(b.count), b.uniform(3, 8)
    b.box(vector(zero, 0.05, 0), vector(zero + 80, 0.05, 80), Material((0.15, 0.8), photo=0.15, specular=0.1))
    for side in (-1, 1):
        z = -b.uniform(14, 22)
        for _ in range(3):
            half = vector(b.uniform(2, 6), b.uniform(2.5, 9), b.uniform(4, 8))
            facade = Material(
                (0.2, 1.2), photo=0.2, recess=Recess((1.4, 3.5), (2, 3.6), (0.3, 0.75), (0.08, 0.6), 0.85)
            )
            place = vector(side * (half_width + half[:, 0] + b.uniform(0, 1)), -half[:, 1], z + half[:, 2])
            b.box(place, half, facade, where=b.chance(0.9))
            z = z + 2 * half[:, 2] + b.uniform(0, 3) * b.chance(0.4)
    end = vector(b.uniform(5, 12), b.uniform(3, 10), 1.0)
    b.box(vector(b.uniform(-4, 4), -end[:, 1], b.uniform(18, 30)), end, Material((0.2, 1), photo=0.5, stretch=0.5))
    for _ in range(3):  # cars and crates
        half = vector(b.uniform(0.4, 0.9), b.uniform(0.4, 0.8), b.uniform(0.5, 2.1))
        place = vector(b.uniform(-0.85, 0.85) * half_width, -half[:, 1], b.uniform(-14, 14))
        b.box(place, half, Material((0.5, 2), stretch=0.5), rotation=b.yaw(-0.3, 0.3), where=b.chance(0.7),
              movable=True)  # fmt: skip
    sign = vector(b.uniform(0.3, 1), b.uniform(0.2, 0.7), 0.03)
    b.box(vector(b.uniform(-0.8, 0.8) * half_width, -b.uniform(1.5, 2.8), b.uniform(-8, 8)), sign,
          Material(photo=1, stretch=1, detail=0), rotation=b.yaw(-0.7, 0.7), where=b.chance(0.6))  # fmt: skip
    _trees(b, (-0.9 * half_width, 0.9 * half_width), (-12.0, 12.0), None)
    for _ in range(3):
        radius, height = b.log_uniform(0.03, 0.2), b.uniform(1, 2.5)
        place = vector(b.uniform(-0.9, 0.9) * half_width, -height, b.uniform(-12, 12))
        b.cylinder(place, vector(radius, height, radius), Material((0.5, 2)), where=b.chance(0.6))
    b.lights(b.chance(0.0), vector(zero, 4, 0))
    drone = b.chance(0.25)
    top = torch.where(drone, -9.0, -2.2)
    b.cameras(
        (vector(-0.8 * half_width, top, -13), vector(0.8 * half_width, top + torch.where(drone, 4.0, 1.2), 13)),
        (vector(-1.3 * half_width, -4, -12), vector(1.3 * half_width, -0.3, 14)),
        near=0.5,
    )


def _trees(b: WorldBuilder, x: tuple[Tensor, Tensor], z: tuple[float, float], waves: Tensor | None) -> None:
    """Two trees: a trunk and a crown, on the terrain if there is one."""
    for _ in range(2):
        there, number, radius = b.chance(0.6), b.new_instance(), b.uniform(0.5, 1.6, 1) * b.uniform(0.7, 1.2, 3)
        place_x, place_z, trunk = x[0] + (x[1] - x[0]) * b.uniform(0, 1), b.uniform(*z), b.uniform(0.6, 1.5)
        ground = torch.zeros(b.count) if waves is None else -height(waves, place_x, place_z)
        stem = vector(0.12 * radius[:, 0], trunk, 0.12 * radius[:, 0])
        b.cylinder(vector(place_x, ground - trunk, place_z), stem, Material((1, 3)), where=there, instance=number)
        crown = vector(place_x, ground - 2 * trunk - 0.8 * radius[:, 1], place_z)
        b.ellipsoid(crown, radius, Material((0.5, 2), photo=0.2, specular=0), where=there, instance=number)


def terrain(b: WorldBuilder) -> None:
    """Rolling ground with boulders, huts, posts and trees, up to the horizon."""
    zero = torch.zeros(b.count)
    ground = Material((0.1, 0.6), photo=0.4, detail=0.8, specular=0.1)
    waves = b.terrain((5, 60), (0.05, 0.45), ground)

    def on_ground(reach: float) -> Tensor:
        x, z = b.uniform(-reach, reach), b.uniform(-reach, reach)
        return vector(x, -height(waves, x, z), z)

    for _ in range(7):
        half = b.log_uniform(0.3, 3.5, 3)
        surface = Material((0.3, 1.5), stretch=0.3, recess=Recess((1, 3), (1, 3), (0.3, 0.7), (0.1, 0.4), 0.4))
        b.box(on_ground(15) - vector(0, 0.6 * half[:, 1], 0), half, surface, rotation=b.yaw(), where=b.chance(0.6),
              movable=True)  # fmt: skip
    for _ in range(3):
        radius = b.log_uniform(0.3, 3)[:, None] * b.uniform(0.6, 1.3, 3)
        b.ellipsoid(on_ground(15), radius, Material((0.3, 1.5)), rotation=b.yaw(), where=b.chance(0.7))
    _trees(b, (zero - 10, zero + 10), (-10.0, 10.0), waves)
    for _ in range(3):
        radius, tall = b.log_uniform(0.04, 0.3), b.uniform(0.8, 3)
        place = on_ground(12) - vector(0, tall * 0.8, 0)
        b.cylinder(place, vector(radius, tall, radius), Material((0.5, 2)), where=b.chance(0.6))
    b.lights(b.chance(0.0), vector(zero, 4, 0))
    swell = 2.5 * waves[..., 3].square().sum(-1).sqrt()
    low = torch.where(b.chance(0.5), 0.8, 6.0)
    b.cameras(
        (vector(zero - 14, -swell - low - 2.5, -14), vector(zero + 14, -0.6 * swell - low, 14)),
        (vector(zero - 8, -1.0, -8), vector(zero + 8, 0.3, 8)),
        near=0.5,
    )


def vista(b: WorldBuilder) -> None:
    """Near objects before houses, hills and towers up to 150 m away: large ratios of depth."""
    zero = torch.zeros(b.count)
    b.box(vector(zero, 0.5, 0), vector(zero + 400, 0.5, 400), Material((0.08, 0.5), photo=0.3))
    for i in range(5):
        half = vector(b.uniform(3, 12), b.log_uniform(3, 25), b.uniform(3, 12))
        far, angle = b.log_uniform(18, 120), b.uniform(-1, 1) + 6.28 * b.chance(0.4) * b.uniform(0, 1)
        place = vector(far * angle.sin(), -half[:, 1], far * angle.cos())
        facade = Material((0.1, 0.6), stretch=0.2, recess=Recess((2, 4), (2.5, 4), (0.3, 0.7), (0.1, 0.6), 0.8))
        b.box(place, half, facade, rotation=b.yaw(), where=b.chance(0.9 if i else 1.0))
    for _ in range(3):
        radius = vector(b.uniform(20, 70), b.uniform(5, 25), b.uniform(20, 70))
        far, angle = b.uniform(90, 170), b.uniform(-1.2, 1.2)
        b.ellipsoid(vector(far * angle.sin(), zero, far * angle.cos()), radius, Material((0.03, 0.15), photo=0.5))
    for _ in range(6):
        half = b.log_uniform(0.15, 1.0, 3)
        place = vector(b.uniform(-3, 3), -half[:, 1], b.uniform(-2, 5))
        b.box(place, half, Material((0.4, 3), stretch=0.5), rotation=b.yaw(), where=b.chance(0.7), movable=True)
    for _ in range(2):
        radius = b.log_uniform(0.15, 0.6, 1) * b.uniform(0.7, 1.2, 3)
        place = vector(b.uniform(-2, 2), -radius[:, 1], b.uniform(-1, 4))
        b.ellipsoid(place, radius, Material((0.5, 3)), where=b.chance(0.7), movable=True)
    for _ in range(4):
        radius, tall = b.log_uniform(0.03, 0.3), b.uniform(0.5, 3)
        place = vector(b.uniform(-5, 5), -tall, b.uniform(-2, 12))
        b.cylinder(place, vector(radius, tall, radius), Material((0.5, 2)), where=b.chance(0.7))
    b.lights(b.chance(0.0), vector(zero, 4, 0))
    b.cameras(
        (vector(zero - 4, -2.5, -6), vector(zero + 4, -0.8, -1)),
        (vector(zero - 3, -2.5, 2), vector(zero + 3, -0.5, 10)),
        near=0.4,
    )


KINDS: dict[str, tuple[Callable[[WorldBuilder], None], float]] = {
    "room": (room, 0.22),
    "tabletop": (tabletop, 0.18),
    "street": (street, 0.16),
    "clutter": (clutter, 0.12),
    "terrain": (terrain, 0.1),
    "planes": (planes, 0.08),
    "thin": (thin, 0.07),
    "vista": (vista, 0.07),
}
"""Every kind of scene with its share."""
