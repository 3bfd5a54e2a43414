import pytest
import torch

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import mapfree

NAMES = ["seq0/frame_00000.jpg", "seq1/frame_00000.jpg", "seq1/frame_00003.jpg", "seq1/frame_00005.jpg"]


def write_place(root, hidden=False):
    folder, poses, calibrations = root / "s00460", [], []
    for k, name in enumerate(NAMES):
        made.write_picture(folder / name, (54, 72))
        camera_from_world = torch.linalg.inv(made.pose(k))
        numbers = [*made.quaternion(camera_from_world), *camera_from_world[:3, 3].tolist()]
        if hidden and k > 0:
            numbers = [0.0] * 7
        poses.append(f"{name} " + " ".join(f"{v:.12f}" for v in numbers))
        calibrations.append(f"{name} {60 + k}.0 {61 + k}.0 26.5 35.5 54 72")
    made.write_text(folder / "poses.txt", "# comment", *poses)
    made.write_text(folder / "intrinsics.txt", *calibrations)
    return folder


def test_queries_of_the_single_frame_leaderboard(tmp_path):
    write_place(tmp_path / "val")
    (place,) = mapfree.read(tmp_path)
    assert place.name == "s00460"
    assert [frame.photo.name for frame in place.references] == NAMES[:1]
    assert [frame.photo.name for frame in place.queries] == [NAMES[1], NAMES[3]]
    camera = place.queries[1].camera
    torch.testing.assert_close(camera.world_from_camera.double(), made.pose(3), atol=1e-6, rtol=0)
    assert camera.intrinsics.tolist() == [[63.0, 0, 26.5], [0, 64.0, 35.5], [0, 0, 1]]
    assert (camera.width, camera.height) == place.queries[1].photo.size
    assert len(mapfree.read(tmp_path, every=1)[0].queries) == 3


def test_hidden_poses_leave_the_intrinsics(tmp_path):
    write_place(tmp_path / "test", hidden=True)
    query = mapfree.read(tmp_path, split="test")[0].queries[0]
    assert query.camera is None
    assert query.intrinsics[0, 0] == 61.0


def test_what_is_missing_is_named(tmp_path):
    folder = write_place(tmp_path)
    made.write_text(folder / "poses.txt", "seq0/frame_00000.jpg 1 0 0 0")
    with pytest.raises(UserError, match=r"poses\.txt has a line of 4 numbers"):
        mapfree.read(tmp_path)
    (folder / "poses.txt").unlink()
    with pytest.raises(UserError, match=r"no .*poses\.txt"):
        mapfree.read(tmp_path)
    with pytest.raises(UserError, match="s00461"):
        mapfree.read(tmp_path, ["s00461"])
