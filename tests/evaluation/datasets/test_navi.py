import json

import pytest
import torch

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import navi


def write_scene(root):
    folder, entries = root / "dog" / "wild_set", []
    for k in range(2):
        made.write_picture(folder / "images" / f"00{k}.jpg", (90, 60))
        made.write_picture(folder / "masks" / f"00{k}.png", (90, 60), 255)
        camera_from_world = torch.linalg.inv(made.pose(k))
        camera = {"q": made.quaternion(camera_from_world), "t": camera_from_world[:3, 3].tolist(), "focal_length": 80.0}
        entries.append({"filename": f"00{k}.jpg", "camera": {**camera, "camera_model": "phone"}})
    (folder / "annotations.json").write_text(json.dumps(entries))
    return folder


def test_poses_are_world_to_camera(tmp_path):
    write_scene(tmp_path)
    (scene,) = navi.read(tmp_path)
    assert scene.name == "dog/wild_set"
    assert not scene.metric
    frame = scene.frames[1]
    torch.testing.assert_close(frame.camera.world_from_camera.double(), made.pose(1), atol=1e-6, rtol=0)
    assert frame.camera.intrinsics.tolist() == [[80, 0, 44.5], [0, 80, 29.5], [0, 0, 1]]
    assert frame.mask().shape == (60, 90)
    assert frame.depth is None


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match="no scene of NAVI"):
        navi.read(tmp_path)
    folder = write_scene(tmp_path)
    with pytest.raises(UserError, match="cat/wild_set"):
        navi.read(tmp_path, ["cat/wild_set"])
    (folder / "annotations.json").write_text('[{"filename": "000.jpg"}]')
    with pytest.raises(UserError, match="camera"):
        navi.read(tmp_path)[0]
