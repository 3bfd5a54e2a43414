from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.models.two_planes import FOCAL, SIZE, picture, pose, view
from unposed.align.multiview import completed, multiview_depth, neighbours
from unposed.geometry.cameras import project
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import invert_rigid, rigid, transform_points
from unposed.views import Camera, Tracks

CENTRES = ((0.0, 0.0, 0.0), (0.5, 0.1, 0.0), (-0.5, 0.0, 0.1), (0.1, -0.4, 0.0))
INTRINSICS = torch.tensor([[FOCAL, 0, (SIZE[1] - 1) / 2], [0, FOCAL, (SIZE[0] - 1) / 2], [0, 0, 1]])


def flat(_):
    return torch.zeros(1, 1)


@pytest.fixture(scope="module")
def walls():
    """Views, cameras, true depths and exact tracks of two walls, one in front of the other."""
    poses = [pose(4 * k, centre) for k, centre in enumerate(CENTRES)]
    pictures = [picture(one) for one in poses]
    views = [view(f"{k}.png", image) for k, (image, _) in enumerate(pictures)]
    cameras = [Camera(INTRINSICS, invert_rigid(one).float(), SIZE[1], SIZE[0]) for one in poses]
    depths = [depth for _, depth in pictures]
    return views, cameras, depths, tracks_of(cameras, depths)


def tracks_of(cameras, depths):
    """Every 400th pixel of the first view, observed wherever the other views see that point."""
    height, width = SIZE
    flat_index = torch.arange(0, height * width, 401)
    x, y = (flat_index % width).float(), (flat_index // width).float()
    rays = torch.stack([x, y, torch.ones_like(x)], -1) @ torch.linalg.inv(INTRINSICS).T
    points = transform_points(cameras[0].world_from_camera, rays * depths[0].flatten()[flat_index, None])
    rows = []
    for k, (camera, depth) in enumerate(zip(cameras, depths, strict=True)):
        local = transform_points(camera.camera_from_world, points)
        pixel = project(local, INTRINSICS)
        column, row = pixel.round().long().unbind(-1)
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        seen = depth[row.clamp(0, height - 1), column.clamp(0, width - 1)]
        track = (inside & ((seen - local[:, 2]).abs() < 0.05)).nonzero()[:, 0]
        rows.append((torch.full_like(track, k), pixel[track], track))
    colours = torch.zeros(len(points), 3, dtype=torch.uint8)
    return Tracks(points, colours, *(torch.cat(parts) for parts in zip(*rows, strict=True)))


def errors(maps, truth):
    return [(depth - true).abs() / true for (depth, _), true in zip(maps, truth, strict=True)]


def test_textured_walls_are_found_in_the_units_of_the_cameras(walls):
    views, cameras, truth, tracks = walls
    maps = multiview_depth(views, cameras, tracks, flat)
    for (depth, confidence), error in zip(maps, errors(maps, truth), strict=True):
        assert depth.shape == confidence.shape == SIZE
        assert (depth > 0).all()
        assert confidence.min() >= 1
        sure = confidence > 2
        assert sure.float().mean() > 0.6
        assert (error[sure] < 0.05).float().mean() > 0.97
        assert error.mean() < 0.03  # of all pixels, what is hidden from the others too


def test_more_views_leave_less_unseen(walls):
    views, cameras, truth, tracks = walls
    two = tracks.view < 2
    pair = Tracks(tracks.points, tracks.colours, tracks.view[two], tracks.pixel[two], tracks.track[two])
    few = multiview_depth(views[:2], cameras[:2], pair, flat)
    many = multiview_depth(views, cameras, tracks, flat)
    assert errors(many, truth)[0].mean() < 0.7 * errors(few, truth[:2])[0].mean()
    assert (many[0][1] > 2).sum() > (few[0][1] > 2).sum()


def test_wrong_cameras_are_hardly_believed(walls):
    views, cameras, _, tracks = walls
    rolls = [matrix_from_axis_angle(torch.tensor([0.0, 0.0, 0.3 * k])) for k in (0, 1, -1, 2)]
    turned = [c.world_from_camera @ rigid(roll, torch.zeros(3)) for c, roll in zip(cameras, rolls, strict=True)]
    wrong = [replace(camera, world_from_camera=one) for camera, one in zip(cameras, turned, strict=True)]
    shares = [
        torch.tensor([(confidence > 2).float().mean() for _, confidence in multiview_depth(views, those, tracks, flat)])
        for those in (wrong, cameras)
    ]
    assert (shares[0] < 0.2 * shares[1]).all()


def test_a_view_that_shares_nothing_has_no_depth(walls):
    views, cameras, _, tracks = walls
    kept = tracks.view != 3
    lonely = Tracks(tracks.points, tracks.colours, tracks.view[kept], tracks.pixel[kept], tracks.track[kept])
    assert [maps is None for maps in multiview_depth(views, cameras, lonely, flat)] == [False, False, False, True]


def test_neighbours_see_the_same_points_under_good_angles():
    points = torch.rand(60, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0, 0, 8.0])
    centres = torch.tensor([[0, 0, 0], [0.01, 0, 0], [1, 0, 0], [9, 0, 9], [0.9, 0, 0]], dtype=torch.float64)
    seen = [range(60), range(60), range(60), range(60), range(5)]
    view = torch.cat([torch.full((len(s),), k) for k, s in enumerate(seen)])
    track = torch.cat([torch.tensor(s) for s in seen])
    tracks = Tracks(points, torch.zeros(60, 3, dtype=torch.uint8), view, torch.zeros(len(view), 2), track)
    found = neighbours(tracks, centres, 0)
    assert found[0].view == 2
    assert 4 not in [one.view for one in found]  # five points are too few
    assert found[0].strength > 3 > max(one.strength for one in found if one.view == 1)


def test_completion_keeps_what_is_supported_and_follows_the_expectation_elsewhere():
    truth = np.linspace(0.0, 1.0, 200)[None].repeat(40, 0)  # log-depth
    support = np.zeros_like(truth, np.float32)
    support[:, :100] = 1
    values = np.where(support > 0, truth, 7).astype(np.float32)
    colours = np.full((40, 200, 3), 90, np.uint8)
    ramp = completed(values, support, colours, torch.linspace(-2.0, -1.2, 50)[None].repeat(10, 1))  # too flat
    assert np.abs(ramp - truth)[:, :100].max() < 0.05
    assert np.abs(ramp - truth)[:, 100:].mean() < 0.05
    constant = completed(values, support, colours, torch.zeros(1, 1))
    assert np.abs(constant - truth)[:, 100:].mean() > 0.2


def test_completion_stops_at_edges_of_colour():
    colours = np.full((40, 60, 3), 40, np.uint8)
    colours[:, 30:] = 200
    support = np.zeros((40, 60), np.float32)
    support[20, 5], support[20, 55] = 1, 1
    values = np.where(np.arange(60) < 30, 0.0, 1.0)[None].repeat(40, 0).astype(np.float32)
    filled = completed(values, support, colours, torch.zeros(1, 1))
    assert filled[20, 28] < 0.35
    assert filled[20, 32] > 0.65
