import torch

from tests.align.synthetic import cloud, exact_matches, ring
from unposed.align.tracks import build_tracks, triangulated_tracks, without_short_tracks
from unposed.geometry.cameras import project
from unposed.geometry.transforms import transform_points
from unposed.views import Matches


def test_exact_matches_give_exact_points_seen_by_every_view() -> None:
    views, cameras = ring()
    points = cloud()
    tracks = triangulated_tracks(exact_matches(points, views, cameras), views, cameras)
    assert len(tracks.points) == len(points)
    assert len(tracks.view) == len(points) * len(views)
    distance = torch.cdist(tracks.points, points).min(1)
    assert distance.values.max() < 1e-3
    assert len(distance.indices.unique()) == len(points)


def test_observations_are_pixels_of_the_original_photo() -> None:
    views, cameras = ring(original=3.0)
    tracks = triangulated_tracks(exact_matches(cloud(), views, cameras), views, cameras)
    for k, camera in enumerate(cameras):
        mine = tracks.view == k
        seen = transform_points(camera.camera_from_world, tracks.points[tracks.track[mine]])
        assert (project(seen, camera.intrinsics) - tracks.pixel[mine]).abs().max() < 0.05


def test_wrong_matches_do_not_survive() -> None:
    views, cameras = ring()
    points = cloud(400)
    tracks = triangulated_tracks(exact_matches(points, views, cameras, noise=0.3, wrong=0.1), views, cameras)
    error = torch.cdist(tracks.points, points).min(1).values
    assert len(tracks.points) > 100
    assert (error < 0.05).float().mean() > 0.97


def test_a_chain_that_would_enter_a_view_twice_is_cut_at_its_weakest_link() -> None:
    a, b = torch.tensor([[10.0, 10.0]]), torch.tensor([[20.0, 20.0]])
    sure, doubtful = torch.ones(1), torch.full((1,), 0.5)
    matches = {(0, 1): Matches(a, a, sure), (1, 2): Matches(a, a, sure), (0, 2): Matches(b, a, doubtful)}
    view, pixel, track = build_tracks(matches)
    assert sorted(view.tolist()) == [0, 1, 2]
    assert (pixel == 10).all()
    assert len(track.unique()) == 1


def test_no_matches_give_no_tracks() -> None:
    views, cameras = ring(2)
    empty = Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
    assert len(triangulated_tracks({(0, 1): empty}, views, cameras).points) == 0
    assert len(triangulated_tracks({}, views, cameras).points) == 0


def test_rays_that_hardly_diverge_are_dropped() -> None:
    views, cameras = ring(2)
    close = [cameras[0], cameras[0].__class__(cameras[0].intrinsics, cameras[0].world_from_camera.clone(), 640, 480)]
    close[1].world_from_camera[0, 3] += 0.01
    assert len(triangulated_tracks(exact_matches(cloud(), views, close), views, close).points) == 0


def test_only_matches_of_long_tracks_are_kept() -> None:
    a, b, c = (torch.tensor([[float(x), 5.0], [float(x), 50.0]]) for x in (10, 20, 30))
    sure = torch.ones(2)
    matches = {(0, 1): Matches(a, b, sure), (1, 2): Matches(b[:1], c[:1], sure[:1])}
    kept = without_short_tracks(matches, 3)
    assert torch.equal(kept[0, 1].points_a, a[:1])
    assert torch.equal(kept[1, 2].points_b, c[:1])
    assert len(without_short_tracks(matches, 2)[0, 1].points_a) == 2
    assert len(without_short_tracks(matches, 4)[0, 1].points_a) == 0
    assert without_short_tracks({}, 2) == {}
