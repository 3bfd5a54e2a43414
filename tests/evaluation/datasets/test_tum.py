import pytest
import torch

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import tum
from unposed.evaluation.datasets.poses import associate

FREIBURG3, BONN = (535.4, 539.2, 320.1, 247.6), (542.822841, 542.576870, 315.593520, 237.756098)
SIZE = (640, 480)


def trajectory(times, poses) -> list[str]:
    lines = ["# time tx ty tz qx qy qz qw"]
    for time, pose in zip(times, poses, strict=True):
        w, x, y, z = made.quaternion(pose)
        tx, ty, tz = pose[:3, 3].tolist()
        lines.append(f"{time:.4f} {tx:.9f} {ty:.9f} {tz:.9f} {x:.9f} {y:.9f} {z:.9f} {w:.9f}")
    return lines


def write_depth(path, k, intrinsics):
    words = 5000 * made.depth(made.camera(k, intrinsics, SIZE)).numpy()
    words[0, 0] = 0
    made.write_words(path, words)


def write_tum(root):
    """Three pictures; the second's nearest pose is too far in time; poses come at another rate."""
    folder = root / "rgbd_dataset_freiburg3_walking_xyz"
    colour, depth = [10.0, 10.5, 11.0], [10.015, 11.01]
    for time in colour:
        made.write_picture(folder / "rgb" / f"{time:.6f}.png")
    for k, time in enumerate(depth):
        write_depth(folder / "depth" / f"{time:.6f}.png", k, FREIBURG3)
    made.write_text(folder / "rgb.txt", "# colour", *(f"{t:.6f} rgb/{t:.6f}.png" for t in colour))
    made.write_text(folder / "depth.txt", "# depth", *(f"{t:.6f} depth/{t:.6f}.png" for t in depth))
    elsewhere = made.pose(3)
    times, poses = [9.97, 10.005, 10.53, 11.001], [elsewhere, made.pose(0), elsewhere, made.pose(1)]
    made.write_text(folder / "groundtruth.txt", *trajectory(times, poses))
    return folder


def test_pictures_get_pose_and_depth_of_their_moment(tmp_path):
    write_tum(tmp_path)
    (sequence,) = tum.read(tmp_path, every=1)
    assert [frame.time for frame in sequence.frames] == [10.0, 11.0]  # the one at 10.5 has no pose
    for k, frame in enumerate(sequence.frames):
        torch.testing.assert_close(frame.camera.world_from_camera.double(), made.pose(k), atol=1e-6, rtol=0)
    assert sequence.frames[0].depth()[0, 0] == 0
    assert sequence.frames[0].photo.name == "rgb/10.000000.png"
    made.assert_same_room(*sequence.frames)


def test_the_published_choice_is_every_third_with_a_pose(tmp_path):
    write_tum(tmp_path)
    assert [frame.time for frame in tum.read(tmp_path)[0].frames] == [10.0]


def test_bonn_poses_are_matched_by_time_not_by_line(tmp_path):
    folder = tmp_path / "rgbd_bonn_dataset" / "rgbd_bonn_crowd2"
    colour, depth = [20.00, 20.03, 20.06], [20.001, 20.031, 20.061]
    for k in range(3):
        made.write_picture(folder / "rgb" / f"{colour[k]:.5f}.png")
        write_depth(folder / "depth" / f"{depth[k]:.5f}.png", k, BONN)
    # three poses for every picture: line k is not picture k
    times = [20.00, 20.01, 20.02, 20.03, 20.04, 20.05, 20.06]
    poses = [made.pose(0), *[made.pose(4)] * 2, made.pose(1), *[made.pose(4)] * 2, made.pose(2)]
    made.write_text(folder / "groundtruth.txt", *trajectory(times, poses))
    (sequence,) = tum.read_bonn(tmp_path, start=1, count=2)
    assert [frame.time for frame in sequence.frames] == colour[1:]
    torch.testing.assert_close(sequence.frames[1].camera.world_from_camera.double(), made.pose(2), atol=1e-6, rtol=0)
    made.assert_same_room(*sequence.frames)


def test_gathered_frames(tmp_path):
    """What MonST3R's preparation leaves: of Bonn, its cut of the poses by line is not used."""
    tum_folder, bonn = tmp_path / "rgbd_dataset_freiburg3_walking_xyz", tmp_path / "rgbd_bonn_crowd2"
    for folder, count in ((tum_folder, 90), (bonn, 110)):
        for k, time in enumerate((10.0, 11.0)):
            made.write_picture(folder / f"rgb_{count}" / f"{time:.6f}.png")
            write_depth(folder / f"depth_{count}" / f"{time:.6f}.png", k, FREIBURG3 if count == 90 else BONN)
        cut = [10.0, 11.0], [made.pose(0), made.pose(1)]
        elsewhere = [10.0, 11.0], [made.pose(4), made.pose(4)]
        right, wrong = ("groundtruth_90.txt", "groundtruth.txt")[:: 1 if count == 90 else -1]
        made.write_text(folder / right, *trajectory(*cut))
        made.write_text(folder / wrong.replace("_90", "_110"), *trajectory(*elsewhere))
    for sequence in tum.read_gathered(tmp_path):
        made.assert_same_room(*sequence.frames)
        torch.testing.assert_close(
            sequence.frames[1].camera.world_from_camera.double(), made.pose(1), atol=1e-6, rtol=0
        )


def test_each_time_is_used_once_and_the_closest_pair_wins():
    assert associate([1.0, 1.01], [1.009], 0.02) == [(1, 0)]
    assert associate([1.0, 1.01], [1.012, 1.004]) == [(0, 1), (1, 0)]
    assert associate([1.0], [1.5], 0.5) == []
    assert associate([1.0], [1.5], 0.51) == [(0, 0)]


def test_what_is_missing_is_named(tmp_path):
    folder = write_tum(tmp_path)
    made.write_text(folder / "groundtruth.txt", "1 2 3")
    with pytest.raises(UserError, match=r"groundtruth\.txt has a line of 3 numbers"):
        tum.read(tmp_path)
    made.write_text(folder / "rgb.txt", "colour/a.png")
    with pytest.raises(UserError, match=r"rgb\.txt"):
        tum.read(tmp_path)
    (folder / "depth.txt").unlink()
    made.write_text(folder / "rgb.txt", "1.0 rgb/a.png")
    with pytest.raises(UserError, match=r"no .*depth\.txt"):
        tum.read(tmp_path)
    with pytest.raises(UserError, match=r"groundtruth\.txt"):
        tum.read_bonn(tmp_path / "..", scenes=None)
