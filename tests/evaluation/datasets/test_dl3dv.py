import json

import pytest
import torch

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import dl3dv


def write_scene(root, name="1K/abc"):
    frames = []
    opencv_from_opengl = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    for k in (1, 0):
        made.write_picture(root / name / "images_8" / f"frame_0000{k + 1}.png", (480, 270))
        matrix = (made.pose(k) @ opencv_from_opengl).tolist()
        frames.append({"file_path": f"images/frame_0000{k + 1}.png", "transform_matrix": matrix})
    camera = {"w": 3840, "h": 2160, "fl_x": 1600.0, "fl_y": 1608.0, "cx": 1920.0, "cy": 1080.0, "k1": 0.01}
    (root / name / "transforms.json").write_text(json.dumps({**camera, "frames": frames}))


def test_cameras_are_those_of_the_small_photos(tmp_path):
    write_scene(tmp_path)
    (scene,) = dl3dv.read(tmp_path)
    assert scene.name == "1K/abc"
    assert not scene.metric
    for k, frame in enumerate(scene.frames):
        assert frame.photo.name == f"frame_0000{k + 1}.png"
        torch.testing.assert_close(frame.camera.world_from_camera.double(), made.pose(k), atol=1e-6, rtol=0)
        assert frame.camera.intrinsics.tolist() == [[200.0, 0, 239.5], [0, 201.0, 134.5], [0, 0, 1]]
        assert (frame.camera.width, frame.camera.height) == frame.photo.size == (480, 270)
    assert len(dl3dv.read(tmp_path / "1K", ["abc"])) == 1


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match="no scene of DL3DV"):
        dl3dv.read(tmp_path)
    write_scene(tmp_path)
    with pytest.raises(UserError, match="images_4"):
        dl3dv.read(tmp_path, size=4)[0]
    (tmp_path / "1K" / "abc" / "transforms.json").write_text('{"frames": [{}]}')
    with pytest.raises(UserError, match="file_path"):
        dl3dv.read(tmp_path)[0]
