import numpy as np
import pytest
import torch

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import sintel

INTRINSICS, SIZE = (1120.0, 1120.0, 511.5, 217.5), (1024, 436)
TAG = np.float32(202021.25).tobytes()


def write_film(root, frames=2):
    training = root / "training"
    for k in range(frames):
        camera, stem = made.camera(k, INTRINSICS, SIZE), f"frame_{k + 1:04d}"
        made.write_picture(training / "final" / "alley_2" / f"{stem}.png", SIZE)
        for kind in ("depth", "camdata_left"):
            (training / kind / "alley_2").mkdir(parents=True, exist_ok=True)
        depth = made.depth(camera).numpy().astype("<f4")
        header = TAG + np.array([SIZE[0], SIZE[1]], "<i4").tobytes()
        (training / "depth" / "alley_2" / f"{stem}.dpt").write_bytes(header + depth.tobytes())
        camera_from_world = torch.linalg.inv(made.pose(k))[:3].numpy().astype("<f8")
        numbers = camera.intrinsics.numpy().astype("<f8").tobytes() + camera_from_world.tobytes()
        (training / "camdata_left" / "alley_2" / f"{stem}.cam").write_bytes(TAG + numbers)
    return training


def test_cameras_and_depth_agree(tmp_path):
    write_film(tmp_path)
    (film,) = sintel.read(tmp_path)
    first, second = film.frames
    assert film.name == "alley_2"
    assert first.photo.size == SIZE
    torch.testing.assert_close(second.camera.world_from_camera.double(), made.pose(1), atol=1e-6, rtol=0)
    made.assert_same_room(first, second)


def test_damaged_files_are_named(tmp_path):
    training = write_film(tmp_path)
    depth = training / "depth" / "alley_2" / "frame_0001.dpt"
    frame = sintel.read(tmp_path)[0].frames[0]
    depth.write_bytes(depth.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"frame_0001\.dpt is cut"):
        frame.depth()
    depth.write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="tag"):
        frame.depth()
    (training / "camdata_left" / "alley_2" / "frame_0002.cam").unlink()
    with pytest.raises(UserError, match=r"frame_0002\.cam"):
        sintel.read(tmp_path)
    with pytest.raises(UserError, match="clean"):
        sintel.read(tmp_path, rendering="clean")
