"""Rendered scenes: deterministic, and every ground truth agrees with every other one."""

import pytest
import torch

from unposed.geometry.cameras import pointmap_from_depth
from unposed.geometry.transforms import transform_points
from unposed.synth import RenderedViews, covisibility, optical_flow, render_scenes, scene_flow, world_points
from unposed.synth.cameras import choose_views, draw_candidates
from unposed.synth.layouts import KINDS
from unposed.synth.render import draw_worlds, render_worlds
from unposed.synth.textures import procedural_textures
from unposed.synth.tour import render_tour
from unposed.synth.worlds import SHAPES, SINGLES

HEIGHT, WIDTH = 60, 80


@pytest.fixture(scope="module")
def still() -> RenderedViews:
    return render_scenes(5, 12, 3, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def moving() -> RenderedViews:
    return render_scenes(6, 12, 3, HEIGHT, WIDTH, moving=True)


def _lookup(values: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Values ``(scenes, height, width, ...)`` at the nearest pixel of ``(scenes, height, width, 2)``."""
    x, y = pixels.nan_to_num(0).round().long().unbind(-1)
    row = torch.arange(len(values))[:, None, None]
    return values[row, y.clamp(0, values.shape[1] - 1), x.clamp(0, values.shape[2] - 1)]


def _grid() -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.stack([x, y], -1).float()


def test_same_seed_same_images_other_seed_other_images(still: RenderedViews) -> None:
    again = render_scenes(5, 12, 3, HEIGHT, WIDTH)
    assert torch.equal(still.images, again.images)
    assert torch.equal(still.depth, again.depth)
    assert not torch.equal(still.images, render_scenes(7, 12, 3, HEIGHT, WIDTH).images)


def test_images_are_finite_and_textured(still: RenderedViews) -> None:
    assert still.images.isfinite().all()
    assert still.images.min() >= 0
    assert still.images.max() <= 1
    assert still.images.flatten(2).std(-1).median() > 0.05


def test_cameras_are_rigid_right_handed_and_upright(still: RenderedViews) -> None:
    rotation = still.world_from_camera[..., :3, :3]
    assert torch.allclose(rotation @ rotation.transpose(-1, -2), torch.eye(3).expand_as(rotation), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(12, 3), atol=1e-5)
    assert (rotation[..., 1, 1] > 0).float().mean() > 0.9  # camera y points down like world y


def test_depth_is_along_z_with_pixel_centres_at_integers(still: RenderedViews) -> None:
    for view in range(3):
        expected = pointmap_from_depth(still.depth[:, view], still.intrinsics[:, view])
        expected = transform_points(still.world_from_camera[:, view], expected)
        assert torch.allclose(world_points(still, view), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_views_agree_about_the_world(kind: str) -> None:
    """Points lifted from one view land, where the other sees them, on its own surface, object and colour."""
    views = render_scenes(8, 4, 2, HEIGHT, WIDTH, kinds=(kind,))
    visible = covisibility(views, 0, 1)
    assert visible.float().mean() > 0.1
    pixels = _grid() + optical_flow(views, 0, 1)
    offset = world_points(views, 0) - _lookup(world_points(views, 1), pixels)
    distance = (offset * _lookup(views.normals[:, 1], pixels)).sum(-1).abs()[visible]
    assert (distance / views.depth[:, 0][visible]).quantile(0.9) < 2e-3  # residual: curvature within a pixel
    same = _lookup(views.instance[:, 1], pixels) == views.instance[:, 0]
    assert same[visible].float().mean() > 0.95
    colours = _lookup(views.images[:, 1].permute(0, 2, 3, 1), pixels) - views.images[:, 0].permute(0, 2, 3, 1)
    assert colours[visible].abs().mean() < 0.06


def test_normals_agree_with_depth(still: RenderedViews) -> None:
    points = world_points(still, 0)
    right, down = points[:, 1:-1, 2:] - points[:, 1:-1, :-2], points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    expected = torch.nn.functional.normalize(torch.linalg.cross(down, right), dim=-1)
    normal, primitive = still.normals[:, 0, 1:-1, 1:-1], still.primitive[:, 0]
    inner = primitive[:, 1:-1, 1:-1]
    smooth = (inner >= 0) & (still.depth[:, 0, 1:-1, 1:-1] > 0)
    for neighbour in (primitive[:, :-2, 1:-1], primitive[:, 2:, 1:-1], primitive[:, 1:-1, :-2], primitive[:, 1:-1, 2:]):
        smooth &= neighbour == inner
    agreement = (expected * normal).sum(-1)[smooth]
    assert agreement.median() > 0.9999
    assert (agreement > 0.95).float().mean() > 0.85  # the rest lies on edges of boxes


def test_normals_face_the_camera_and_are_unit(still: RenderedViews) -> None:
    seen = still.depth > 0
    assert torch.allclose(still.normals[seen].norm(dim=-1), torch.ones(()), atol=1e-4)
    towards = still.world_from_camera[:, 0, None, None, :3, 3] - world_points(still, 0)
    assert ((towards * still.normals[:, 0]).sum(-1)[seen[:, 0]] > -1e-4).all()


def test_sky_is_marked_everywhere(still: RenderedViews) -> None:
    sky = still.depth == 0
    assert torch.equal(sky, still.instance == 0)
    assert torch.equal(sky, still.primitive == -1)
    assert (still.normals[sky] == 0).all()


def test_overlap_spans_the_range() -> None:
    views = render_scenes(11, 60, 2, 48, 64)
    seen = (views.depth[:, 0] > 0).flatten(1).float().sum(-1).clamp(min=1)
    share = covisibility(views, 0, 1).flatten(1).float().sum(-1) / seen
    assert (share > 0.3).float().mean() > 0.6
    assert share.min() < 0.3
    assert share.max() > 0.85


def test_still_scenes_do_not_move(still: RenderedViews) -> None:
    assert not still.moving.any()
    assert (scene_flow(still, 0, 2) == 0).all()


def test_moving_objects_are_masked_and_flow_follows_them(moving: RenderedViews) -> None:
    assert 0.001 < moving.moving.float().mean() < 0.5
    flow = scene_flow(moving, 0, 1)
    mask = moving.moving[:, 0]
    assert (flow[~mask] == 0).all()
    assert (flow[mask].norm(dim=-1) > 0).float().mean() > 0.95
    back = covisibility(moving, 0, 1) & mask
    assert back.sum() > 50
    pixels = _grid() + optical_flow(moving, 0, 1)
    same = _lookup(moving.instance[:, 1], pixels) == moving.instance[:, 0]
    assert same[back].float().mean() > 0.9
    there_and_back = flow + _lookup(scene_flow(moving, 1, 0), pixels)
    assert there_and_back[back & same].norm(dim=-1).median() < 0.05 * flow[back & same].norm(dim=-1).median()


def test_grouping_of_primitives_changes_nothing() -> None:
    """The form for compilers and the form for running as written give the same pictures."""
    textures, generator = procedural_textures(), torch.Generator().manual_seed(9)
    worlds = draw_worlds(6, generator, textures, False, tuple(KINDS))
    candidates = draw_candidates(worlds, 2, 24, 32, generator)
    cameras = choose_views(worlds, candidates, 2, 24, 32, SINGLES)
    single, grouped = (render_worlds(worlds, *cameras, 24, 32, textures, g) for g in (SINGLES, SHAPES))
    assert torch.equal(single.primitive, grouped.primitive)
    assert torch.allclose(single.images, grouped.images, atol=1e-5)


def test_supersampling_keeps_the_truth_and_smooths_colours() -> None:
    plain, fine = (render_scenes(12, 2, 1, 40, 52, supersample=s) for s in (1, 3))
    assert torch.equal(plain.depth, fine.depth)
    assert 0 < (plain.images - fine.images).abs().mean() < 0.05


def test_a_tour_has_one_camera_and_neighbours_that_share_most() -> None:
    views = render_tour(2, "tabletop", 4, 48, 64, procedural_textures(), supersample=1)
    assert (views.intrinsics == views.intrinsics[:, :1]).all()
    for i in range(3):
        assert covisibility(views, i, i + 1).float().mean() > 0.5
    forward = views.world_from_camera[0, :, :3, 2]
    turn = torch.rad2deg(torch.acos((forward[1:] * forward[:-1]).sum(-1)))
    assert (turn > 3).all()
    assert (turn < 30).all()


def test_rendering_stays_on_one_device_and_never_waits_for_it() -> None:
    """The meta device refuses both mixed devices and reading a value back, as a GPU in the hot path should."""
    views = render_scenes(0, 9, 2, 24, 32, textures=procedural_textures().to("meta"), device="meta", moving=True)
    assert views.images.shape == (9, 2, 3, 24, 32)
    assert views.images.device.type == "meta"
    assert covisibility(views, 0, 1).device.type == "meta"
