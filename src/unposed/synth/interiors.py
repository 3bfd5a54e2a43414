"""Kinds of scenes, indoors: rooms, tables with objects, floating clutter, planes. Metres; floor y = 0, up -y."""

import torch
from torch import Tensor

from unposed.synth.builder import Material, Recess, WorldBuilder


def vector(x: Tensor | float, y: Tensor | float, z: Tensor | float) -> Tensor:
    """Stack components to ``(count, 3)``; numbers fit themselves to the tensors."""
    return torch.stack(torch.broadcast_tensors(*(torch.as_tensor(c, dtype=torch.float32) for c in (x, y, z))), -1)


def room(b: WorldBuilder) -> None:
    """A room with a floor, furniture-like boxes, pictures, a table, lamps and balls."""
    wide, deep, high = b.uniform(1.7, 4.5), b.uniform(1.7, 4.5), b.uniform(2.2, 3.6)
    size = vector(wide, high / 2, deep)
    walls = Material((0.2, 1.0), photo=0.15, recess=Recess((1.2, 3.0), (1.5, 3.0), (0.35, 0.7), (0.1, 0.5), 0.45))
    b.box(vector(0 * wide, -high / 2, 0), size, walls, shell=True)
    b.box(vector(0 * wide, -0.01, 0), vector(wide, 0.01, deep), Material((0.25, 1.2), photo=0.2))
    b.box(vector(0 * wide, 0.01 - high, 0), vector(wide, 0.01, deep), Material((0.2, 0.6), photo=0.1))
    for side in (-1, 1, -1, 1):  # furniture along two opposite walls
        half = vector(b.uniform(0.2, 0.8), b.uniform(0.2, 1.1), b.uniform(0.15, 0.45))
        along = b.uniform(-0.8, 0.8) * (wide - half[:, 0])
        surface = Material(
            (0.4, 2.0), stretch=0.3, recess=Recess((0.3, 0.9), (0.25, 0.6), (0.6, 0.9), (0.05, 0.3), 0.5)
        )
        b.box(vector(along, -half[:, 1], side * (deep - half[:, 2])), half, surface, where=b.chance(0.7))
    _table(b, 0.45 * wide, 0.45 * deep)
    for _ in range(2):
        picture = vector(b.uniform(0.25, 0.8), b.uniform(0.2, 0.6), 0.02)
        place = vector(b.uniform(-0.7, 0.7) * wide, -b.uniform(1.2, 1.9), deep - 0.02)
        b.box(place, picture, Material(photo=1.0, stretch=1.0, detail=0), where=b.chance(0.7))
    for _ in range(2):
        _standing_box(b, 0.8 * wide, 0.8 * deep, (0.08, 0.45))
    for _ in range(3):
        radius = b.log_uniform(0.06, 0.35, 3) * 0.5 + b.log_uniform(0.06, 0.35, 1) * 0.5
        place = vector(b.uniform(-0.8, 0.8) * wide, -radius[:, 1], b.uniform(-0.8, 0.8) * deep)
        b.ellipsoid(place, radius, Material((0.5, 3)), rotation=b.yaw(), where=b.chance(0.5), movable=True)
    for _ in range(3):
        radius, height = b.log_uniform(0.02, 0.3), b.uniform(0.2, 1.0)
        place = vector(b.uniform(-0.85, 0.85) * wide, -height, b.uniform(-0.85, 0.85) * deep)
        b.cylinder(place, vector(radius, height, radius), Material((0.5, 3)), where=b.chance(0.5), movable=True)
    b.lights(b.chance(2.0), vector(wide, high, deep))
    eye = vector(wide - 0.3, 0, deep - 0.3)
    low, top = vector(0 * wide, -1.9, 0), vector(0 * wide, -0.5, 0)
    b.cameras((low - eye, top + eye), (low - 0.8 * eye + vector(0 * wide, 0.4, 0), top + 0.8 * eye), near=0.3)


def _table(b: WorldBuilder, wide: Tensor, deep: Tensor) -> None:
    """A table top on two side panels, one object."""
    there, number = b.chance(0.7), b.new_instance()
    half = vector(b.uniform(0.4, 0.9), 0.02, b.uniform(0.3, 0.6))
    height, surface = b.uniform(0.45, 0.9), Material((0.4, 2.0), photo=0.2)
    x, z = b.uniform(-1, 1) * wide, b.uniform(-1, 1) * deep
    b.box(vector(x, -height, z), half, surface, where=there, instance=number)
    for side in (-1, 1):
        panel = vector(0.02, height / 2, 0.9 * half[:, 2])
        b.box(vector(x + side * 0.9 * half[:, 0], -height / 2, z), panel, surface, where=there, instance=number)


def _standing_box(b: WorldBuilder, wide: Tensor, deep: Tensor, half_size: tuple[float, float]) -> None:
    half = b.log_uniform(*half_size, 3)
    place = vector(b.uniform(-1, 1) * wide, -half[:, 1], b.uniform(-1, 1) * deep)
    b.box(place, half, Material((0.5, 3), stretch=0.6), rotation=b.yaw(), where=b.chance(0.8), movable=True)


def tabletop(b: WorldBuilder) -> None:
    """Small objects on a table, some on top of each other, in a room or outdoors; cameras around them."""
    wide, deep = b.uniform(0.45, 1.0), b.uniform(0.45, 1.0)
    indoors, floor, crowd = b.chance(0.6), b.uniform(0.4, 0.9), b.uniform(0.45, 0.9)
    zero = torch.zeros_like(wide)
    shell = vector(zero + 3, 1.5, 3)
    b.box(vector(zero, floor - 1.45, 0), shell, Material((0.3, 1.5), photo=0.3), shell=True, where=indoors)
    b.box(vector(zero, floor + 0.02, 0), vector(zero + 12, 0.02, 12), Material((0.3, 2)), where=b.chance(0.85))
    b.box(vector(zero, 0.03, 0), vector(wide, 0.03, deep), Material((0.7, 4), photo=0.3, stretch=0.3))

    def on_table() -> Tensor:
        return vector(b.uniform(-1, 1) * crowd * wide, zero, b.uniform(-1, 1) * crowd * deep)

    for _ in range(4):  # boxes with a smaller one on top
        half, place = b.log_uniform(0.04, 0.2, 3), on_table()
        material = Material((2, 10), photo=0.5, stretch=0.7)
        there = b.chance(0.7)
        b.box(place - vector(zero, half[:, 1], 0), half, material, rotation=b.yaw(), where=there, movable=True)
        small = half * b.uniform(0.3, 0.8, 3)
        above = place - vector(zero, 2 * half[:, 1] + small[:, 1], 0)
        material = Material((2, 10), photo=0.5, stretch=0.7)
        b.box(above, small, material, rotation=b.yaw(), where=there & b.chance(0.5))
    for _ in range(3):
        half, material = b.log_uniform(0.03, 0.18, 3), Material((2, 10), photo=0.5, stretch=0.7)
        place = on_table() - vector(zero, half[:, 1], 0)
        b.box(place, half, material, rotation=b.yaw(), where=b.chance(0.6), movable=True)
    for _ in range(5):
        radius = b.log_uniform(0.03, 0.14, 1) * b.uniform(0.7, 1.3, 3)
        place = on_table() - vector(zero, radius[:, 1], 0)
        b.ellipsoid(place, radius, Material((2, 10)), rotation=b.yaw(), where=b.chance(0.55), movable=True)
    for _ in range(5):
        radius, tall = b.log_uniform(0.012, 0.12), b.uniform(0.03, 0.2)
        place = on_table() - vector(zero, tall, 0)
        b.cylinder(place, vector(radius, tall, radius), Material((2, 10)), where=b.chance(0.55), movable=True)
    b.lights(indoors, vector(zero + 2.5, 1.8, 2.5))
    reach = 1.3 * (wide + deep) / 2 + 0.2
    b.cameras(
        (vector(-reach, -1.1, -reach), vector(reach, -0.12, reach)),
        (vector(-0.5 * wide, -0.15, -0.5 * deep), vector(0.5 * wide, 0.0, 0.5 * deep)),
        near=0.12,
    )


def clutter(b: WorldBuilder) -> None:
    """Boxes, balls and cylinders of all sizes floating in space, in a hall or under the sky."""
    zero, indoors = torch.zeros(b.count), b.chance(0.5)
    b.box(vector(zero, 0, 0), b.uniform(4.5, 9, 3), Material((0.1, 0.6), photo=0.5), shell=True, where=indoors)
    for _ in range(11):
        half = b.log_uniform(0.1, 1.0, 3)
        b.box(_floating(b), half, Material((0.3, 3), photo=0.5, stretch=0.5), rotation=b.rotation(),
              where=b.chance(0.8), movable=True)  # fmt: skip
    for _ in range(5):
        radius = b.log_uniform(0.15, 0.9, 1) * b.uniform(0.6, 1.3, 3)
        b.ellipsoid(_floating(b), radius, Material((0.3, 3)), rotation=b.rotation(), where=b.chance(0.7), movable=True)
    for _ in range(5):
        radius, length = b.log_uniform(0.03, 0.4), b.uniform(0.2, 1.5)
        b.cylinder(_floating(b), vector(radius, length, radius), Material((0.3, 3)), rotation=b.rotation(),
                   where=b.chance(0.7), movable=True)  # fmt: skip
    b.lights(indoors & b.chance(0.5), vector(zero + 4, 4, 4))
    reach = vector(zero + 4.2, 3.5, 4.2)
    b.cameras((-reach, reach), (-0.5 * reach, 0.5 * reach), near=0.4)


def _floating(b: WorldBuilder) -> Tensor:
    return b.point((-3, 3), (-2.5, 2.5), (-3, 3))


def planes(b: WorldBuilder) -> None:
    """A ground and a few large tilted panels, mostly photos: planar scenes, the hard case of two-view geometry."""
    zero = torch.zeros(b.count)
    b.box(vector(zero, 0.05, 0), vector(zero + 15, 0.05, 15), Material((0.1, 1), photo=0.4), where=b.chance(0.7))
    for i in range(5):
        half = vector(b.uniform(0.6, 3), b.uniform(0.5, 2.2), 0.03)
        place = vector(b.uniform(-3, 3), -b.uniform(0.5, 2.2), b.uniform(-2, 2))
        surface = Material((0.2, 2), photo=0.75, stretch=0.8)
        b.box(place, half, surface, rotation=b.yaw(-1, 1), where=b.chance(1.0 if i == 0 else 0.5), movable=i > 0)
    b.lights(b.chance(0.2), vector(zero + 4, 4, 4))
    b.cameras(
        (vector(zero - 5, -3, -6), vector(zero + 5, -0.5, 6)),
        (vector(zero - 1.5, -2, -0.5), vector(zero + 1.5, -0.5, 0.5)),
        near=0.4,
    )


def thin(b: WorldBuilder) -> None:
    """Fences, rails, poles and cables in front of walls: thin parts and large jumps of depth."""
    zero, indoors = torch.zeros(b.count), b.chance(0.4)
    b.box(vector(zero, -1.95, 0), vector(b.uniform(4, 6), 2, b.uniform(4, 6)), Material((0.2, 1)), shell=True,
          where=indoors)  # fmt: skip
    b.box(vector(zero, 0.05, 0), vector(zero + 20, 0.05, 20), Material((0.2, 1), photo=0.3))
    wall = vector(b.uniform(2, 5), b.uniform(1, 2.5), 0.1)
    b.box(vector(b.uniform(-1, 1), -wall[:, 1], b.uniform(2, 3.8)), wall, Material((0.2, 1.5), photo=0.6, stretch=0.5))
    fence, turn = b.point((-1, 1), (0, 0), (-1, 1)), b.yaw()
    tall, gap, thickness, metal = (
        b.uniform(0.4, 1.1),
        b.uniform(0.12, 0.5),
        b.log_uniform(0.008, 0.04),
        Material((1, 4)),
    )
    number = b.new_instance()
    for i in range(7):
        offset = vector((i - 3) * gap, -tall, 0)
        place = fence + (turn @ offset[..., None])[..., 0]
        b.box(place, vector(thickness, tall, thickness), metal, rotation=turn, instance=number)
    for level in (0.4, 1.8):
        place = fence + vector(0, -level * tall, 0)
        b.box(place, vector(3.4 * gap, 0.8 * thickness, 0.6 * thickness), metal, rotation=turn, instance=number)
    for _ in range(2):
        _standing_box(b, zero + 2, zero + 2, (0.15, 0.6))
    for _ in range(3):
        radius, tall = b.log_uniform(0.01, 0.06), b.uniform(0.6, 1.8)
        b.cylinder(vector(b.uniform(-3, 3), -tall, b.uniform(-2, 3)), vector(radius, tall, radius), Material((1, 4)))
    for _ in range(2):
        radius, length = b.log_uniform(0.006, 0.03), b.uniform(1, 4)
        b.cylinder(b.point((-2, 2), (-2, -0.5), (-1, 2)), vector(radius, length, radius), Material((1, 4)),
                   rotation=b.rotation(), where=b.chance(0.7), movable=True)  # fmt: skip
    for _ in range(2):
        radius = b.log_uniform(0.1, 0.4, 1) * b.uniform(0.7, 1.2, 3)
        place = vector(b.uniform(-2, 2), -radius[:, 1], b.uniform(-2, 2))
        b.ellipsoid(place, radius, Material((0.5, 3)), where=b.chance(0.6), movable=True)
    b.lights(indoors, vector(zero + 3, 3.5, 3))
    b.cameras(
        (vector(zero - 3.5, -2.0, -3.5), vector(zero + 3.5, -0.5, 3.5)),
        (vector(zero - 1.2, -1.2, -1.2), vector(zero + 1.2, -0.3, 2.5)),
        near=0.3,
    )
