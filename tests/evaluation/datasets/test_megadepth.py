import os

import numpy as np
import pytest
import torch

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import megadepth

SIZES = [(800, 600), (500, 700)]


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def write_pairs(root, **more):
    meta = dict(more)
    for k, size in enumerate(SIZES):
        name = f"0015/images/{k}.jpg"
        made.write_picture(root / name, size)
        camera = made.camera(k, (900.0 + k, 901.0, size[0] / 2, size[1] / 2), size)
        pose = torch.linalg.inv(made.pose(k)).numpy()
        meta[name] = {"intrinsic": camera.intrinsics.numpy(), "pose": pose}
    np.savez(root / "megadepth_meta_test.npz", **meta)
    made.write_text(root / "megadepth_test_pairs.txt", "0015/images/0.jpg 0015/images/1.jpg")


def test_pairs_have_sizes_of_the_photos_and_the_pose_from_first_to_second(tmp_path):
    write_pairs(tmp_path)
    pairs = megadepth.read(tmp_path)
    assert len(pairs) == 1
    pair = pairs[0]
    expected = torch.linalg.inv(made.pose(1)) @ made.pose(0)
    torch.testing.assert_close(pair.b_from_a.double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(pair.b.camera.world_from_camera.double(), made.pose(1), atol=1e-6, rtol=0)
    assert (pair.b.camera.width, pair.b.camera.height) == SIZES[1]
    assert pair.a.camera.intrinsics[0].tolist() == [900.0, 0, 400.0]
    assert len(megadepth.read(tmp_path, ["0015"])) == 1
    assert len(megadepth.read(tmp_path, ["0022"])) == 0


def test_nothing_in_the_index_is_executed(tmp_path):
    write_pairs(tmp_path, evil=np.array(Evil(), dtype=object))
    with pytest.raises(UserError, match="do not trust it"):
        megadepth.read(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    write_pairs(tmp_path)
    (tmp_path / "0015" / "images" / "1.jpg").unlink()
    with pytest.raises(UserError, match=r"0015/images/1\.jpg"):
        megadepth.read(tmp_path)[0]
    made.write_text(tmp_path / "megadepth_test_pairs.txt", "0015/images/0.jpg 0015/images/7.jpg")
    with pytest.raises(UserError, match="has no cameras for the pair"):
        megadepth.read(tmp_path)
    (tmp_path / "megadepth_meta_test.npz").write_bytes(b"no")
    with pytest.raises(UserError, match=r"megadepth_meta_test\.npz cannot be used"):
        megadepth.read(tmp_path)
