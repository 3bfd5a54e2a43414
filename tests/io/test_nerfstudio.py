import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.factories import box_scene
from unposed.errors import UserError
from unposed.io.nerfstudio import read_transforms, write_transforms
from unposed.scene import Scene


def with_photos(scene: Scene, folder) -> Scene:
    """The scene with plain photo files of the original size."""
    folder.mkdir()
    views = []
    for item in scene.views:
        Image.new("RGB", item.view.original_size, "teal").save(folder / item.view.name)
        views.append(replace(item, view=replace(item.view, path=folder / item.view.name)))
    return replace(scene, views=tuple(views))


def write(scene: Scene, path) -> dict:
    views, cameras = [item.view for item in scene.views], [item.camera for item in scene.views]
    write_transforms(path, views, cameras, scene.points(0.0))
    return json.loads(path.read_text())


def test_frames_project_points_into_the_original_photos(tmp_path):
    """With nerfstudio's own arithmetic: OpenGL axes, pixel corners."""
    scene = with_photos(box_scene(), tmp_path / "photos")
    (tmp_path / "out").mkdir()
    text = write(scene, tmp_path / "out" / "transforms.json")
    for k, frame in enumerate(text["frames"]):
        with Image.open(tmp_path / "out" / frame["file_path"]) as image:
            assert image.size == (frame["w"], frame["h"]) == scene.views[k].view.original_size
        mine = scene.tracks.view == k
        points = scene.tracks.points[scene.tracks.track[mine]].double().numpy()
        world_from_camera = np.array(frame["transform_matrix"])
        local = (points - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]
        assert (local[:, 2] < 0).all()
        x = frame["cx"] + frame["fl_x"] * local[:, 0] / -local[:, 2]
        y = frame["cy"] - frame["fl_y"] * local[:, 1] / -local[:, 2]
        seen = scene.tracks.pixel[mine].double().numpy() + 0.5
        assert np.abs(np.stack([x, y], -1) - seen).max() < 0.01
    assert text["frames"][0]["file_path"] == "../photos/photo_0.png"
    assert (tmp_path / "out" / text["ply_file_path"]).read_bytes().startswith(b"ply")


def test_cameras_are_read_back_the_same(tmp_path):
    scene = with_photos(box_scene(), tmp_path / "photos")
    write(scene, tmp_path / "transforms.json")
    cameras = read_transforms(tmp_path / "transforms.json")
    assert list(cameras) == list(scene.cameras)
    for name, camera in scene.cameras.items():
        assert torch.allclose(cameras[name].intrinsics, camera.intrinsics, atol=1e-4)
        assert torch.allclose(cameras[name].world_from_camera, camera.world_from_camera, atol=1e-6)
        assert (cameras[name].width, cameras[name].height) == (camera.width, camera.height)


def test_frames_of_a_video_get_files_of_their_own(tmp_path):
    scene = box_scene(views=2)
    text = write(scene, tmp_path / "transforms.json")
    with Image.open(tmp_path / text["frames"][1]["file_path"]) as image:
        assert image.size == (text["frames"][1]["w"], text["frames"][1]["h"]) == (32, 24)


def foreign(**changes) -> dict:
    frame = {"file_path": "./images/left/a.jpg", "transform_matrix": torch.eye(4).tolist()}
    other = {"file_path": "./images/right/a.jpg", "transform_matrix": torch.eye(4).tolist()}
    return {"w": 640, "h": 480, "fl_x": 500.0, "cx": 320.0, "cy": 240.0, "frames": [frame, other], **changes}


def test_files_of_other_programs_are_read(tmp_path):
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps(foreign()))
    cameras = read_transforms(path)
    assert list(cameras) == ["left/a.jpg", "right/a.jpg"]
    camera = cameras["left/a.jpg"]
    assert camera.intrinsics.tolist() == [[500, 0, 319.5], [0, 500, 239.5], [0, 0, 1]]
    assert torch.equal(camera.world_from_camera, torch.diag(torch.tensor([1.0, -1, -1, 1])))
    text = foreign(camera_angle_x=float(np.pi / 2))
    del text["fl_x"]
    path.write_text(json.dumps(text))
    assert read_transforms(path)["left/a.jpg"].intrinsics[0, 0] == pytest.approx(320)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no usable"),
        ("[]", "no usable"),
        (json.dumps({"frames": [{}]}), "no usable"),
        (json.dumps(foreign(frames=[{"file_path": "a.jpg", "transform_matrix": [[1]]}])), "no usable"),
        (json.dumps(foreign(frames=None)), "no usable"),
        (json.dumps(foreign(k1=0.1)), "undistort"),
    ],
)
def test_damaged_and_distorted_files_are_said(tmp_path, content, said):
    path = tmp_path / "transforms.json"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        read_transforms(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_transforms(tmp_path / "nothing.json")
