import json

import numpy as np
import pytest
import torch
import trimesh

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import tanks


def write_scene(root, scale=2.0):
    """Poses of another world, at another scale; the transform takes them to that of the scan."""
    folder = root / "Barn"
    scan_from_world = torch.linalg.inv(made.pose(5))
    scan_from_world[:3] *= scale
    world_from_scan = torch.linalg.inv(scan_from_world)
    log = []
    for k in range(2):
        made.write_picture(folder / f"{k + 1:06d}.jpg", (96, 54))
        pose = world_from_scan @ made.pose(k)
        pose[:3, :3] *= scale  # a rotation again
        log.append(f"{k} {k} 0\n{made.words(pose)}")
    made.write_text(folder / "Barn_COLMAP_SfM.log", *log)
    made.write_text(folder / "Barn_trans.txt", made.words(scan_from_world))
    trimesh.PointCloud(np.array([[1.0, 2, 3], [4, 5, 6]])).export(folder / "Barn.ply")
    return folder


def test_poses_are_brought_to_the_world_of_the_scan(tmp_path):
    write_scene(tmp_path)
    (scene,) = tanks.read(tmp_path)
    assert scene.metric
    for k, frame in enumerate(scene.frames):
        torch.testing.assert_close(frame.camera.world_from_camera.double(), made.pose(k), atol=1e-5, rtol=0)
        assert (frame.camera.width, frame.camera.height) == frame.photo.size == (96, 54)
        assert frame.camera.intrinsics.isnan().all()  # the log has none
    assert scene.points().tolist() == [[1, 2, 3], [4, 5, 6]]


def test_scenes_without_truth(tmp_path):
    folder = write_scene(tmp_path)
    (folder / "Barn_trans.txt").unlink()
    (scene,) = tanks.read(tmp_path)
    assert not scene.metric
    assert scene.points is None
    assert scene.frames[0].camera is not None
    (folder / "Barn_COLMAP_SfM.log").unlink()
    assert tanks.read(tmp_path)[0].frames[0].camera is None


def test_crop_volume(tmp_path):
    corners = [[0, 9, 0], [2, 9, 0], [2, 9, 2], [1, 9, 1], [0, 9, 2]]  # across y, with a notch
    entry = {"bounding_polygon": corners, "orthogonal_axis": "Y", "axis_min": -1.0, "axis_max": 1.0}
    (tmp_path / "Barn.json").write_text(json.dumps(entry))
    points = torch.tensor([[0.5, 0, 0.5], [0.5, 2, 0.5], [1.0, 0, 1.5], [3.0, 0, 0.5], [1.8, -0.9, 1.5]])
    assert tanks.read_crop(tmp_path / "Barn.json").contains(points).tolist() == [True, False, False, False, True]
    (tmp_path / "Barn.json").write_text("{}")
    with pytest.raises(UserError, match="no crop volume"):
        tanks.read_crop(tmp_path / "Barn.json")


def test_what_is_missing_is_named(tmp_path):
    folder = write_scene(tmp_path)
    (folder / "000002.jpg").unlink()
    with pytest.raises(UserError, match="pose of photo 1"):
        tanks.read(tmp_path)
    made.write_text(folder / "Barn_COLMAP_SfM.log", "0 0 0", "1 0")
    with pytest.raises(UserError, match="no log"):
        tanks.read(tmp_path)
    with pytest.raises(UserError, match="Truck"):
        tanks.read(tmp_path, ["Truck"])
