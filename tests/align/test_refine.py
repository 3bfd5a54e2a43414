from dataclasses import replace

import pytest
import torch

from tests.align.synthetic import cloud, exact_matches, ring
from unposed.align.refine import explained_share, refine
from unposed.evaluation.photo_sets import score_cameras
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.io.colmap import bundle_adjust
from unposed.views import Camera, Tracks


def _disturbed(cameras: list[Camera], angle: float, focal: float) -> list[Camera]:
    generator = torch.Generator().manual_seed(0)
    result = []
    for camera in cameras:
        pose = camera.world_from_camera.clone()
        pose[:3, :3] = pose[:3, :3] @ matrix_from_axis_angle(angle * torch.randn(3, generator=generator))
        pose[:3, 3] += 2 * angle * torch.randn(3, generator=generator)
        k = camera.intrinsics.clone()
        k[0, 0] *= focal
        k[1, 1] *= focal
        result.append(replace(camera, intrinsics=k, world_from_camera=pose))
    return result


def _named(cameras: list[Camera]) -> dict[str, Camera]:
    return {str(k): camera for k, camera in enumerate(cameras)}


def test_disturbed_cameras_come_back() -> None:
    views, cameras = ring(6)
    matches = exact_matches(cloud(300), views, cameras, noise=0.2, wrong=0.05)
    rough = _disturbed(cameras, angle=0.01, focal=1.04)
    result = refine(matches, views, rough, shared_intrinsics=True)
    before = score_cameras(_named(rough), _named(cameras))
    after = score_cameras(_named(result.cameras), _named(cameras))
    assert result.kept
    assert result.explained_after > 0.9 > result.explained_before
    assert after["rotation_median_deg"] < 0.2 < before["rotation_median_deg"]
    assert after["auc@5"] > 0.9
    focals = {round(float(camera.intrinsics[0, 0]), 3) for camera in result.cameras}
    assert len(focals) == 1


def test_cameras_that_already_explain_everything_within_two_pixels_still_gain() -> None:
    views, cameras = ring(6)
    matches = exact_matches(cloud(300), views, cameras, noise=0.05)
    rough = _disturbed(cameras, angle=0.0, focal=1.005)
    result = refine(matches, views, rough, shared_intrinsics=True, measured=True)
    assert result.explained_before == 1
    assert result.kept
    assert abs(float(result.cameras[0].intrinsics[0, 0] / cameras[0].intrinsics[0, 0]) - 1) < 0.001


def test_exact_cameras_are_not_made_worse() -> None:
    views, cameras = ring(4)
    matches = exact_matches(cloud(100), views, cameras, noise=0.5)
    result = refine(matches, views, cameras)
    assert explained_share(matches, views, result.cameras) >= explained_share(matches, views, cameras)
    assert result.explained_after >= result.explained_before or not result.kept


def test_without_adjustment_the_cameras_stay_and_tracks_come() -> None:
    views, cameras = ring(4)
    result = refine(exact_matches(cloud(100), views, cameras), views, cameras, adjust=False)
    assert not result.kept
    assert all(a is b for a, b in zip(result.cameras, cameras, strict=True))
    assert len(result.tracks.points) == 100


def test_fixed_poses_and_intrinsics_stay() -> None:
    views, cameras = ring(5)
    matches = exact_matches(cloud(200), views, cameras, noise=0.1)
    rough = _disturbed(cameras, angle=0.005, focal=1.0)
    rough[0], rough[1] = cameras[0], cameras[1]
    result = refine(matches, views, rough, fixed_poses=(0, 1), fixed_intrinsics=True)
    assert result.kept
    for k in (0, 1):
        assert torch.allclose(result.cameras[k].world_from_camera, cameras[k].world_from_camera, atol=1e-6)
        assert torch.equal(result.cameras[k].intrinsics, cameras[k].intrinsics)


def test_too_few_matches_change_nothing() -> None:
    views, cameras = ring(3)
    result = refine(exact_matches(cloud(5), views, cameras), views, cameras)
    assert not result.kept
    assert refine({}, views, cameras).explained_before == 0


def test_a_focal_length_that_runs_away_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    views, cameras = ring(4)
    matches = exact_matches(cloud(200), views, cameras, noise=0.2)
    asked = []

    def runaway(given: list[Camera], tracks: Tracks, *, fixed_intrinsics: bool, **options: object) -> list[Camera]:
        asked.append(fixed_intrinsics)
        adjusted = bundle_adjust(given, tracks, fixed_intrinsics=fixed_intrinsics, **options)
        return adjusted if fixed_intrinsics else _disturbed(adjusted, angle=0.0, focal=20.0)

    monkeypatch.setattr("unposed.align.refine.bundle_adjust", runaway)
    result = refine(matches, views, _disturbed(cameras, angle=0.003, focal=1.0))
    assert asked[-1]
    assert {float(c.intrinsics[0, 0]) for c in result.cameras} == {float(c.intrinsics[0, 0]) for c in cameras}
