import numpy as np
import pytest
import torch

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import scannet

DEPTH_K, COLOUR_K = (577.0, 578.0, 319.5, 239.5), (1165.0, 1166.0, 649.0, 484.0)
SIZE, COLOUR_SIZE = (640, 480), (1296, 968)


def write_scene(folder, size, frames=(0, 1)):
    for name, k in (("depth", DEPTH_K), ("color", COLOUR_K)):
        square = torch.eye(4)
        square[:3, :3] = made.camera(0, k, size).intrinsics
        made.write_text(folder / "intrinsic" / f"intrinsic_{name}.txt", made.words(square))
    for number in frames:
        made.write_picture(folder / "color" / f"{number}.jpg", size)
        made.write_text(folder / "pose" / f"{number}.txt", made.words(made.pose(number)))
        depth = 1000 * made.depth(made.camera(number, DEPTH_K, SIZE)).numpy()
        made.write_words(folder / "depth" / f"{number}.png", depth)


def write_pairs(root):
    write_scene(root / "scannet_test_1500" / "scene0707_00", SIZE)
    relative = torch.linalg.inv(made.pose(1)) @ made.pose(0)
    np.savez(root / "test.npz", name=np.array([[707, 0, 0, 1]]), rel_pose=relative[:3].reshape(1, 12).numpy())


def test_the_relative_pose_takes_the_first_camera_to_the_second(tmp_path):
    write_pairs(tmp_path)
    (pair,) = scannet.read(tmp_path)
    assert pair.name == "scene0707_00/0-1"
    expected = pair.b.camera.camera_from_world @ pair.a.camera.world_from_camera
    torch.testing.assert_close(pair.b_from_a, expected, atol=1e-5, rtol=0)
    assert pair.a.camera.intrinsics[0].tolist() == [577.0, 0, 319.5]  # of the depth camera: photos are 640x480
    made.assert_same_room(pair.a, pair.b)
    assert scannet.read(tmp_path, ["scene0708_00"]) == []


def test_video_frames_are_in_the_order_of_their_numbers(tmp_path):
    write_scene(tmp_path / "scene0707_00", COLOUR_SIZE, frames=(0, 1, 2, 10))
    made.write_text(tmp_path / "scene0707_00" / "pose" / "10.txt", *["-inf -inf -inf -inf"] * 4)
    (video,) = scannet.read_video(tmp_path, every=1)
    assert [frame.photo.name.split("/")[1] for frame in video.frames] == ["0.jpg", "1.jpg", "2.jpg", "10.jpg"]
    assert video.frames[3].camera is None  # tracking was lost
    camera = video.frames[1].camera
    assert (camera.width, camera.height) == COLOUR_SIZE
    assert camera.intrinsics[0].tolist() == [1165.0, 0, 649.0]
    assert video.frames[1].depth().shape == (480, 640)
    chosen = scannet.read_video(tmp_path)[0].frames
    assert [frame.photo.name.split("/")[1] for frame in chosen] == ["0.jpg", "10.jpg"]


def test_gathered_frames(tmp_path):
    folder = tmp_path / "scene0707_00"
    for k in range(2):
        made.write_picture(folder / "color_90" / f"frame_{k:04d}.jpg", SIZE)
        made.write_words(folder / "depth_90" / f"frame_{k:04d}.png", np.full((480, 640), 2500.0))
    rows = [" ".join(f"{value:.9f}" for value in made.pose(k).flatten().tolist()) for k in range(2)]
    made.write_text(folder / "pose_90.txt", *rows)
    (video,) = scannet.read_gathered(tmp_path)
    torch.testing.assert_close(video.frames[1].camera.world_from_camera.double(), made.pose(1), atol=1e-6, rtol=0)
    assert video.frames[1].camera.intrinsics.isnan().all()
    assert video.frames[1].depth().unique().tolist() == [2.5]
    made.write_text(folder / "pose_90.txt", rows[0])
    with pytest.raises(UserError, match="1 poses for 2 frames"):
        scannet.read_gathered(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"test\.npz"):
        scannet.read(tmp_path)
    np.savez(tmp_path / "test.npz", name=np.zeros((1, 4), int))
    with pytest.raises(UserError, match="rel_pose"):
        scannet.read(tmp_path)
    write_pairs(tmp_path)
    (tmp_path / "scannet_test_1500" / "scene0707_00" / "pose" / "1.txt").unlink()
    with pytest.raises(UserError, match=r"pose/1\.txt"):
        scannet.read(tmp_path)
