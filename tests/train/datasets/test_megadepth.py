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

IMAGES = ["1_o.jpg", "2_o.JPG", "3.png", "4.jpg"]


@pytest.fixture(params=["named", "plain"])
def scenes(tmp_path, request):
    scenes = [rendered(3), rendered(4)]
    for index, (scene, folder) in enumerate(zip(scenes, ("0001/0", "0015/2"), strict=True)):
        for k in range(2):
            stem = tmp_path / folder / IMAGES[2 * index + k]
            intrinsics, pose = camera(scene, k)
            write_photo(stem.with_name(f"{stem.name}.jpg"), scene, k)
            write_depth_exr(stem.with_name(f"{stem.name}.exr"), scene, k)
            write_arrays(stem.with_name(f"{stem.name}.npz"), intrinsics=intrinsics, cam2world=pose)
    rows = [(0, 0, 1, 0.5), (1, 3, 2, 0.9), (0, 1, 0, 0.1)]
    named = [("scene_id", "i4"), ("im1_id", "i4"), ("im2_id", "i4"), ("score", "f4")]
    pairs = np.array(rows, named) if request.param == "named" else np.array(rows)
    write_arrays(tmp_path / "all_metadata.npz", scenes=["0001 0", "0015 2"], images=IMAGES, pairs=pairs)
    return scenes


def test_landmarks_are_split(tmp_path, scenes):
    training, validation = open_dataset("megadepth", tmp_path), open_dataset("megadepth", tmp_path, split="val")
    assert (len(training), len(validation)) == (2, 1)
    first, second = validation.pair(0, np.random.default_rng(0))
    assert first.label == "megadepth/0015/2"
    assert is_view(first, scenes[1], 1)
    assert is_view(second, scenes[1], 0)
    assert_reprojects(first, second)
    assert is_view(training.pair(1, np.random.default_rng(0))[0], scenes[0], 1)
    with pytest.raises(UserError, match="split test"):
        open_dataset("megadepth", tmp_path, split="test")


def test_a_list_of_photos_that_are_not_there_is_refused(tmp_path):
    for pairs in (np.array([[0, 0, 4]]), np.array([[2, 0, 1]]), np.array([[0, 1]])):
        write_arrays(tmp_path / "all_metadata.npz", scenes=["0001 0", "0015 2"], images=IMAGES, pairs=pairs)
        with pytest.raises(UserError, match="all_metadata"):
            open_dataset("megadepth", tmp_path)


def test_a_damaged_depth_map_is_named(tmp_path, scenes):
    (tmp_path / "0001/0/1_o.jpg.exr").write_bytes(b"v/1\x01nonsense")
    with pytest.raises(UserError, match=r"1_o\.jpg\.exr"):
        open_dataset("megadepth", tmp_path).pair(0, np.random.default_rng(0))
