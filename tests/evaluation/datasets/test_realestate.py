import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import realestate

SIZE, INTRINSICS = (64, 36), (40.0, 41.0, 31.5, 17.5)  # the principal point in the middle
STAMPS = [100000, 133000, 166000]


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def row(k):
    """fx, fy, cx, cy as shares, two zeros, world to camera."""
    camera_from_world = torch.linalg.inv(made.pose(k))[:3].flatten().tolist()
    return [40.0 / 64, 41.0 / 36, 0.5, 0.5, 0.0, 0.0, *camera_from_world]


def check(sequence, order=(0, 1, 2)):
    assert not sequence.metric
    for frame, k in zip(sequence.frames, order, strict=True):
        camera = frame.camera
        torch.testing.assert_close(camera.world_from_camera.double(), made.pose(k), atol=1e-6, rtol=0)
        expected = made.camera(k, INTRINSICS, SIZE).intrinsics
        torch.testing.assert_close(camera.intrinsics.double(), expected, atol=1e-5, rtol=0)
        assert (camera.width, camera.height) == SIZE
        assert frame.time == pytest.approx(STAMPS[k] / 1e6)


def write_clip(root, name="abc"):
    lines = [f"{stamp} " + " ".join(f"{v:.9f}" for v in row(k)) for k, stamp in enumerate(STAMPS)]
    made.write_text(root / "test" / f"{name}.txt", "https://www.youtube.com/watch?v=0", *lines)
    for stamp in STAMPS:
        made.write_picture(root / "frames" / "test" / name / f"{stamp}.png", SIZE)


def write_chunks(root):
    folder = root / "test"
    folder.mkdir()
    for chunk, name in (("000000.torch", "one"), ("000001.torch", "two")):
        images = []
        for shade in (10, 120, 240):
            made.write_picture(root / "a.jpg", SIZE, shade)
            images.append(torch.from_numpy(np.frombuffer((root / "a.jpg").read_bytes(), np.uint8).copy()))
        clip = {
            "url": "",
            "timestamps": torch.tensor(STAMPS),
            "cameras": torch.tensor([row(k) for k in range(3)]),
            "images": images,
            "key": name,
        }
        torch.save([clip], folder / chunk)
    (folder / "index.json").write_text(json.dumps({"two": "000001.torch", "one": "000000.torch"}))


def test_published_clips(tmp_path):
    write_clip(tmp_path)
    (clip,) = realestate.read(tmp_path)
    assert clip.name == "abc"
    assert clip.frames[1].photo.name == "abc/133000.png"
    check(clip)
    (tmp_path / "frames" / "test" / "abc" / "133000.png").unlink()
    check(realestate.read(tmp_path, ["abc"])[0], (0, 2))  # a frame that was not downloaded


def test_packed_clips(tmp_path):
    write_chunks(tmp_path)
    clips = realestate.read_chunks(tmp_path)
    assert [clip.name for clip in clips] == ["one", "two"]  # by chunk, so that each is read once
    check(clips[1])
    photo = clips[0].frames[2].photo
    assert photo.size == SIZE
    assert np.asarray(photo.load()).mean() == pytest.approx(240, abs=2)
    assert isinstance(photo.load(), Image.Image)
    assert photo.digest != clips[0].frames[0].photo.digest


def test_evaluation_index(tmp_path):
    write_chunks(tmp_path)
    index = tmp_path / "evaluation_index.json"
    index.write_text(json.dumps({"one": None, "two": {"context": [0, 2], "target": [1], "overlap": 0.4}}))
    (views,) = realestate.read_novel_views(tmp_path)
    assert (views.name, views.overlap) == ("two", 0.4)
    assert [frame.photo.name for frame in (*views.context, *views.targets)] == [
        f"two/{STAMPS[k]}.jpg" for k in (0, 2, 1)
    ]
    (pair,) = realestate.read_pairs(tmp_path, index=index)
    expected = torch.linalg.inv(made.pose(2)) @ made.pose(0)
    torch.testing.assert_close(pair.b_from_a.double(), expected, atol=1e-5, rtol=0)
    assert pair.overlap == 0.4
    index.write_text(json.dumps({"two": {"context": [0, 9], "target": [1]}}))
    with pytest.raises(UserError, match="does not fit the clip two"):
        realestate.read_novel_views(tmp_path)[0]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match="test"):
        realestate.read(tmp_path)
    with pytest.raises(UserError, match=r"index\.json"):
        realestate.read_chunks(tmp_path)
    write_chunks(tmp_path)
    with pytest.raises(UserError, match="no clip three"):
        realestate.read_chunks(tmp_path, ["three"])
    torch.save([{"key": Evil(tmp_path / "executed")}], tmp_path / "test" / "000001.torch")
    with pytest.raises(UserError, match="more than tensors"):
        realestate.read_chunks(tmp_path, ["two"])[0]
    assert not (tmp_path / "executed").exists()
    write_clip(tmp_path)
    for photo in (tmp_path / "frames" / "test" / "abc").iterdir():
        photo.unlink()
    with pytest.raises(UserError, match="none of the frames"):
        realestate.read(tmp_path)[0]
