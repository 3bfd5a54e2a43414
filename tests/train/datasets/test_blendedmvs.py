import numpy as np
import pytest

from tests.train.datasets.layouts import (
    assert_reprojects,
    camera,
    is_view,
    rendered,
    write_arrays,
    write_depth_exr,
    write_photo,
)
from unposed.errors import UserError
from unposed.train.datasets import open_dataset

ROW = [("seq_high", "u4"), ("seq_low", "u8"), ("img1", "i4"), ("img2", "i4"), ("score", "f4")]
LOW = 0xF00000000000000B  # its last decimal digit is 5; more than float64 can hold


@pytest.fixture
def scene(tmp_path):
    scene = rendered()
    for k in range(2):
        folder = tmp_path / f"0000000a{LOW:x}"
        intrinsics, pose = camera(scene, k)
        write_photo(folder / f"{k + 11:08d}.jpg", scene, k)
        write_depth_exr(folder / f"{k + 11:08d}.exr", scene, k)
        write_arrays(
            folder / f"{k + 11:08d}.npz", intrinsics=intrinsics, R_cam2world=pose[:3, :3], t_cam2world=pose[:3, 3]
        )
    rows = [(10, LOW, 12, 11, 0.7), (1, 20, 0, 1, 0.3)]
    np.save(tmp_path / "blendedmvs_pairs.npy", np.array(rows, ROW))
    return scene


def test_listed_pairs_come_back_as_they_were_rendered(tmp_path, scene):
    training = open_dataset("blendedmvs", tmp_path)
    assert (len(training), len(open_dataset("blendedmvs", tmp_path, split="val"))) == (1, 1)
    first, second = training.pair(0, np.random.default_rng(0))
    assert is_view(first, scene, 1)
    assert is_view(second, scene, 0)
    assert_reprojects(first, second)


def test_a_missing_sequence_is_named(tmp_path, scene):
    with pytest.raises(UserError, match=r"000000010000000000000014.00000000\.npz is missing"):
        open_dataset("blendedmvs", tmp_path, split="val").pair(0, np.random.default_rng(0))
