import h5py
import numpy as np
import pytest
from scipy.io import savemat

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import nyu

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (2, 480, 640, 3), np.uint8)
DEPTH = RNG.uniform(1, 9, (2, 480, 640)).astype(np.float32)
DEPTH[:, 0, 0], DEPTH[:, 0, 1] = np.nan, 0


def check(sequence, k):
    (frame,) = sequence.frames
    assert frame.photo.size == (640, 480)
    assert (np.asarray(frame.photo.load()) == PIXELS[k]).all()
    depth = frame.depth()
    assert depth[0, :2].tolist() == [0, 0]
    assert (depth[1:] == DEPTH[k, 1:]).all()
    assert frame.intrinsics[0, 0] == pytest.approx(518.857901)


def test_converted_folders(tmp_path):
    made.write_picture(tmp_path / "nyu_images" / "00001.png")
    (tmp_path / "nyu_depths").mkdir()
    np.save(tmp_path / "nyu_depths" / "00001.npy", DEPTH[0])
    (sequence,) = nyu.read(tmp_path)
    assert sequence.name == "00001"
    assert (sequence.frames[0].depth()[1:] == DEPTH[0, 1:]).all()


def test_single_hdf5_files(tmp_path):
    for k in range(2):
        path = tmp_path / "official" / f"0000{k}.h5"
        path.parent.mkdir(exist_ok=True)
        with h5py.File(path, "w") as file:
            file["rgb"], file["depth"] = PIXELS[k].transpose(2, 0, 1), DEPTH[k]
    sequences = nyu.read(tmp_path)
    assert [sequence.name for sequence in sequences] == ["official/00000", "official/00001"]
    check(sequences[1], 1)


def test_labelled_file_and_its_test_photos(tmp_path):
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:  # MATLAB's order: axes reversed
        file["images"] = np.stack([PIXELS[k].transpose(2, 1, 0) for k in range(2)])
        file["depths"] = np.stack([DEPTH[k].T for k in range(2)])
    savemat(tmp_path / "splits.mat", {"trainNdxs": np.array([[1]]), "testNdxs": np.array([[2]])})
    (sequence,) = nyu.read(tmp_path)
    assert sequence.name == "00001"  # counted from 0
    check(sequence, 1)
    (tmp_path / "splits.mat").unlink()
    with pytest.raises(UserError, match=r"splits\.mat"):
        nyu.read(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no NYUv2"):
        nyu.read(tmp_path)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["rgb"] = PIXELS[0].transpose(2, 0, 1)
    (sequence,) = nyu.read(tmp_path)
    with pytest.raises(UserError, match=r"a\.h5 cannot be used"):
        sequence.frames[0].depth()
    with pytest.raises(UserError, match="no photo b"):
        nyu.read(tmp_path, ["b"])
