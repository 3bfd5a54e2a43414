"""Depths against pencil and paper: a box, a ball, a cylinder, a recess, terrain, a room from inside."""

import math

import pytest
import torch

from unposed.synth.builder import Material, Recess, WorldBuilder
from unposed.synth.render import RenderedViews, render_worlds
from unposed.synth.textures import procedural_textures


def _render(builder: WorldBuilder) -> RenderedViews:
    """65 x 65 pixels, focal 64, from the origin along +z."""
    one = torch.ones(1, 3)
    builder.lights(builder.chance(0), one)
    builder.cameras((-one, one), (-one, one), near=0.1)
    k = torch.tensor([[64.0, 0, 32], [0, 64, 32], [0, 0, 1]])[None, None]
    return render_worlds(builder.build(moving=False), k, torch.eye(4)[None, None], 65, 65, procedural_textures())


@pytest.fixture
def builder() -> WorldBuilder:
    return WorldBuilder(1, torch.Generator().manual_seed(0), procedural_textures())


def test_box(builder: WorldBuilder) -> None:
    builder.box(torch.tensor([[0.0, 0, 5]]), torch.tensor([[1.01, 0.51, 1]]), Material())
    depth = _render(builder).depth[0, 0]
    assert depth[32, 32] == pytest.approx(4, abs=1e-5)
    assert (depth[32] > 0).sum() == 2 * 16 + 1  # half-width 1.01 at depth 4, focal 64: 16.2 pixels
    assert (depth[:, 32] > 0).sum() == 2 * 8 + 1


def test_ball_and_its_normal(builder: WorldBuilder) -> None:
    builder.ellipsoid(torch.tensor([[0.0, 0, 5]]), torch.tensor([[1.0, 1, 1]]), Material())
    views = _render(builder)
    slope = 10 / 64  # the ray (slope t, 0, t) meets the unit ball around (0, 0, 5)
    t = (5 - math.sqrt(25 - 24 * (1 + slope**2))) / (1 + slope**2)
    assert views.depth[0, 0, 32, 42] == pytest.approx(t, abs=1e-5)
    assert views.normals[0, 0, 32, 42].tolist() == pytest.approx([slope * t, 0, t - 5], abs=1e-4)


def test_cylinder_side_and_cap(builder: WorldBuilder) -> None:
    builder.cylinder(torch.tensor([[0.0, 1.5, 5]]), torch.tensor([[1.0, 1, 1]]), Material())
    views = _render(builder)
    assert views.depth[0, 0, 32 + 12, 32] == pytest.approx(4, abs=1e-5)  # the side: y = 0.75 at depth 4
    assert views.depth[0, 0, 32 + 7, 32] == pytest.approx(0.5 * 64 / 7, abs=1e-4)  # the cap at y = 0.5
    assert views.normals[0, 0, 32 + 7, 32].tolist() == pytest.approx([0, -1, 0], abs=1e-5)


def test_recess_is_as_deep_as_it_says(builder: WorldBuilder) -> None:
    window = Material(recess=Recess((2, 2), (2, 2), (0.5, 0.5), (0.4, 0.4)))
    builder.box(torch.tensor([[0.0, 0, 5]]), torch.tensor([[1.0, 1, 1]]), window)
    views = _render(builder)
    assert views.depth[0, 0, 32, 32] == pytest.approx(4.4, abs=1e-5)
    assert views.depth[0, 0, 32, 32 + 12] == pytest.approx(4, abs=1e-5)  # x = 0.75: beside the opening
    reveal = views.depth[0, 0, 32, 32 + 7]  # x = 0.44 at the face: meets the back wall or the side
    assert 4 < reveal <= 4.4 + 1e-5
    assert views.normals[0, 0, 32, 32].tolist() == pytest.approx([0, 0, -1], abs=1e-5)


def test_room_from_inside(builder: WorldBuilder) -> None:
    builder.box(torch.tensor([[0.0, 0, 0]]), torch.tensor([[3.0, 2, 6]]), Material(), shell=True)
    views = _render(builder)
    assert views.depth[0, 0, 32, 32] == pytest.approx(6, abs=1e-5)
    assert (views.depth > 0).all()
    assert views.normals[0, 0, 32, 32].tolist() == pytest.approx([0, 0, -1], abs=1e-5)


def test_terrain_lies_where_its_waves_say(builder: WorldBuilder) -> None:
    waves = builder.terrain((5, 20), (0.1, 0.3), Material())
    waves[..., 2] = 0  # all waves zero at the origin
    one = torch.ones(1, 3)
    builder.lights(builder.chance(0), one)
    builder.cameras((-one, one), (-one, one), near=0.1)
    worlds = builder.build(moving=False)
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([0.0, -6, 0])
    pose[:3, :3] = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # straight down: camera z is world y
    k = torch.tensor([[64.0, 0, 32], [0, 64, 32], [0, 0, 1]])[None, None]
    views = render_worlds(worlds, k, pose[None, None], 65, 65, procedural_textures())
    assert views.depth[0, 0, 32, 32] == pytest.approx(6, abs=1e-4)
    row, column = 10, 50
    depth = float(views.depth[0, 0, row, column])
    x, z = (column - 32) / 64 * depth, -(row - 32) / 64 * depth
    height = sum(float(a) * math.sin(float(kx) * x + float(kz) * z) for kx, kz, _, a in waves[0])
    assert depth == pytest.approx(6 - height, abs=1e-3)
