import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.factories import box_scene
from unposed.errors import UserError
from unposed.geometry.cameras import project
from unposed.geometry.rotations import matrix_from_axis_angle, rotation_angle
from unposed.geometry.transforms import rigid, transform_points
from unposed.io.colmap import bundle_adjust, read_colmap, write_colmap
from unposed.views import Camera, Tracks

# isort: split
import pycolmap  # after Pillow, which unposed.io.colmap has loaded


def reprojection_errors(cameras: list[Camera], tracks: Tracks) -> torch.Tensor:
    errors = []
    for k, camera in enumerate(cameras):
        mine = tracks.view == k
        local = transform_points(camera.camera_from_world, tracks.points[tracks.track[mine]])
        errors.append((project(local, camera.intrinsics) - tracks.pixel[mine]).norm(dim=-1))
    return torch.cat(errors)


@pytest.mark.parametrize("text", [False, True])
def test_model_is_read_back_the_same(tmp_path, text):
    scene = box_scene()
    write_colmap(tmp_path / "sparse", scene.cameras, scene.tracks, text=text)
    cameras, tracks = read_colmap(tmp_path / "sparse")
    assert list(cameras) == list(scene.cameras)
    for name, camera in scene.cameras.items():
        read = cameras[name]
        assert (read.width, read.height) == (camera.width, camera.height)
        assert torch.allclose(read.intrinsics, camera.intrinsics, atol=1e-4)
        assert torch.allclose(read.world_from_camera, camera.world_from_camera, atol=1e-5)
    assert torch.allclose(tracks.points, scene.tracks.points, atol=1e-6)
    assert torch.equal(tracks.colours, scene.tracks.colours)
    order = (tracks.view * len(tracks.points) + tracks.track).argsort()
    wanted = (scene.tracks.view * len(tracks.points) + scene.tracks.track).argsort()
    assert torch.equal(tracks.view[order], scene.tracks.view[wanted])
    assert torch.allclose(tracks.pixel[order], scene.tracks.pixel[wanted], atol=1e-4)
    assert reprojection_errors(list(cameras.values()), tracks).max() < 0.01


def test_colmap_itself_finds_the_points_at_their_pixels(tmp_path):
    """With COLMAP's own projection, so that a wrong half pixel or a swapped pose shows."""
    scene = box_scene()
    write_colmap(tmp_path / "sparse", scene.cameras, scene.tracks)
    model = pycolmap.Reconstruction(tmp_path / "sparse")
    model.update_point_3d_errors()
    assert model.compute_mean_reprojection_error() < 1e-3
    camera = next(iter(model.cameras.values()))
    ours = scene.views[0].camera.intrinsics
    assert np.allclose(camera.params, [ours[0, 0], ours[1, 1], ours[0, 2] + 0.5, ours[1, 2] + 0.5], atol=1e-4)
    image = model.find_image_with_name("photo_0.png")
    seen = scene.tracks.pixel[scene.tracks.view == 0][0].numpy()
    assert np.allclose(image.points2D[0].xy, seen + 0.5, atol=1e-4)


def test_equal_cameras_are_one_and_different_ones_are_not(tmp_path):
    scene = box_scene()
    write_colmap(tmp_path / "one", scene.cameras)
    assert pycolmap.Reconstruction(tmp_path / "one").num_cameras() == 1
    cameras = scene.cameras
    longer = cameras["photo_1.png"].intrinsics.clone()
    longer[0, 0] += 10
    cameras["photo_1.png"] = replace(cameras["photo_1.png"], intrinsics=longer)
    write_colmap(tmp_path / "two", cameras)
    model = pycolmap.Reconstruction(tmp_path / "two")
    assert model.num_cameras() == 2
    assert {camera.model.name for camera in model.cameras.values()} == {"PINHOLE"}


def test_points_of_depth_maps_come_without_observations(tmp_path):
    scene = box_scene()
    write_colmap(tmp_path / "sparse", scene.cameras, scene.points(0.0, max_points=200))
    model = pycolmap.Reconstruction(tmp_path / "sparse")
    assert model.num_points3D() == 200
    assert model.compute_num_observations() == 0
    assert model.num_reg_images() == 4


def test_an_earlier_model_is_replaced_but_nothing_else(tmp_path):
    scene = box_scene()
    write_colmap(tmp_path / "sparse", scene.cameras, scene.tracks)
    write_colmap(tmp_path / "sparse", box_scene(views=2).cameras)
    assert len(read_colmap(tmp_path / "sparse")[0]) == 2
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    with pytest.raises(UserError, match="holds other files"):
        write_colmap(tmp_path / "letters", scene.cameras)


def test_no_model_a_cut_one_and_a_distorted_one_are_said(tmp_path):
    with pytest.raises(UserError, match="holds no COLMAP model"):
        read_colmap(tmp_path)
    scene = box_scene()
    write_colmap(tmp_path / "cut", scene.cameras, scene.tracks)
    for file in sorted((tmp_path / "cut").iterdir()):
        whole = file.read_bytes()
        for damaged in (
            whole[:7],
            whole[: len(whole) // 2],
            whole[:-1],
            b"\xff" * 8 + whole[8:],
        ):  # the last: endless entries
            file.write_bytes(damaged)
            with pytest.raises(UserError, match="cannot be used"):
                read_colmap(tmp_path / "cut")
        file.write_bytes(whole)
    write_colmap(tmp_path / "bent", scene.cameras, text=True)
    file = tmp_path / "bent" / "cameras.txt"
    line = file.read_text().splitlines()[-1].split()
    file.write_text(" ".join([line[0], "SIMPLE_RADIAL", *line[2:4], line[4], *line[6:8], "0.1"]) + "\n")
    with pytest.raises(UserError, match="undistort"):
        read_colmap(tmp_path / "bent")
    bent = pycolmap.Reconstruction(tmp_path / "bent")
    (tmp_path / "bent_binary").mkdir()
    bent.write_binary(tmp_path / "bent_binary")
    with pytest.raises(UserError, match="undistort"):
        read_colmap(tmp_path / "bent_binary")


def _disturbed(cameras: list[Camera], angle: float, shift: float, focal: float) -> list[Camera]:
    generator = torch.Generator().manual_seed(1)
    result = []
    for camera in cameras:
        turn = matrix_from_axis_angle(angle * torch.randn(3, generator=generator))
        step = rigid(turn, shift * torch.randn(3, generator=generator))
        intrinsics = camera.intrinsics.clone()
        intrinsics[0, 0] *= focal
        intrinsics[1, 1] *= focal
        result.append(replace(camera, intrinsics=intrinsics, world_from_camera=camera.world_from_camera @ step))
    return result


def _relative_errors(found: list[Camera], exact: list[Camera]) -> tuple[float, float]:
    """Largest error in degrees of relative rotations and of directions to the first camera's frame."""
    worst_rotation, worst_direction = 0.0, 0.0
    for k in range(1, len(exact)):
        a = found[0].camera_from_world @ found[k].world_from_camera
        b = exact[0].camera_from_world @ exact[k].world_from_camera
        worst_rotation = max(worst_rotation, float(rotation_angle(a[:3, :3] @ b[:3, :3].T).rad2deg()))
        cosine = torch.nn.functional.cosine_similarity(a[:3, 3], b[:3, 3], dim=0)
        worst_direction = max(worst_direction, float(cosine.clamp(-1, 1).acos().rad2deg()))
    return worst_rotation, worst_direction


@pytest.mark.parametrize("shared", [False, True])
def test_bundle_adjustment_recovers_disturbed_cameras(shared):
    scene = box_scene()
    exact = list(scene.cameras.values())
    start = _disturbed(exact, angle=0.01, shift=0.02, focal=1.05)
    assert _relative_errors(start, exact)[0] > 0.5
    found = bundle_adjust(start, scene.tracks, shared_intrinsics=shared)
    rotation, direction = _relative_errors(found, exact)
    assert rotation < 0.02
    assert direction < 0.1
    for camera, truth in zip(found, exact, strict=True):
        assert camera.intrinsics[0, 0] == pytest.approx(float(truth.intrinsics[0, 0]), rel=2e-3)
        assert camera.intrinsics[0, 0] == camera.intrinsics[1, 1]
        assert torch.allclose(camera.intrinsics[:2, 2], truth.intrinsics[:2, 2], atol=1e-4)
    if shared:
        assert len({float(camera.intrinsics[0, 0]) for camera in found}) == 1


def test_bundle_adjustment_leaves_what_is_fixed():
    scene = box_scene()
    exact = list(scene.cameras.values())
    start = _disturbed(exact, angle=0.01, shift=0.02, focal=1.0)
    start[1], start[3] = exact[1], exact[3]
    found = bundle_adjust(start, scene.tracks, fixed_intrinsics=True, fixed_poses=(1, 3))
    for k in (1, 3):
        assert torch.equal(found[k].world_from_camera, exact[k].world_from_camera)
    for camera, truth in zip(found, exact, strict=True):
        assert torch.allclose(camera.intrinsics, truth.intrinsics, atol=1e-4)
        assert torch.allclose(camera.world_from_camera, truth.world_from_camera, atol=1e-3)
    one = bundle_adjust(start, scene.tracks, fixed_intrinsics=True, fixed_poses=(1,))
    assert torch.equal(one[1].world_from_camera, exact[1].world_from_camera)
    assert _relative_errors(one, exact)[0] < 0.02


def test_single_observations_and_no_tracks_do_not_stop_bundle_adjustment():
    scene = box_scene()
    cameras = list(scene.cameras.values())
    tracks = scene.tracks
    none = Tracks(tracks.points, tracks.colours, tracks.view[:0], tracks.pixel[:0], tracks.track[:0])
    assert bundle_adjust(cameras, none) == cameras
    once = tracks.view == 0
    alone = Tracks(tracks.points, tracks.colours, tracks.view[once], tracks.pixel[once], tracks.track[once])
    assert bundle_adjust(cameras, alone) == cameras


def test_pillow_still_writes_png_after_us():
    """pycolmap's zlib breaks Pillow's PNG writer when pycolmap is imported first; a fresh process shows it."""
    code = (
        "import unposed.io.colmap\n"
        "from PIL import Image\n"
        "import io; Image.new('RGB', (64, 64)).save(io.BytesIO(), 'png'); print('written')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "written", run.stderr[-500:]
