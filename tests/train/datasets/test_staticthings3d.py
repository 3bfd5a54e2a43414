import numpy as np
import pytest
import torch
from PIL import Image

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

ROW = [("scene", "S1"), ("seq", "i4"), ("cam1", "S1"), ("im1", "i4"), ("cam2", "S1"), ("im2", "i4")]


@pytest.fixture
def scene(tmp_path):
    scene = rendered()
    scene.depth[0, :, :5] = 300  # background
    for k, side in enumerate(("left", "right")):
        folder = tmp_path / f"TRAIN/B/0042/{side}"
        intrinsics, pose = camera(scene, k)
        write_photo(folder / "0007_clean.jpg", scene, k)
        Image.fromarray(np.full((48, 64, 3), 99, np.uint8)).save(folder / "0007_final.jpg")
        write_depth_exr(folder / "0007.exr", scene, k)
        write_arrays(folder / "0007.npz", intrinsics=intrinsics, cam2world=pose)
    np.save(tmp_path / "staticthings_pairs.npy", np.array([("B", 42, "l", 7, "r", 7)], ROW))
    return scene


def test_pairs_come_in_both_renderings(tmp_path, scene):
    dataset = open_dataset("staticthings3d", tmp_path)
    assert len(dataset) == 1
    finals = set()
    for seed in range(12):
        pair = dataset.pair(0, np.random.default_rng(seed))
        final = [bool((view.photo.image == 99).mean() > 0.9) for view in pair]
        assert all(f or is_view(view, scene, k) for k, (f, view) in enumerate(zip(final, pair, strict=True)))
        finals.add(tuple(final))
    assert len(finals) == 4
    assert_reprojects(*pair)


def test_background_is_beyond_200(tmp_path, scene):
    first, second = open_dataset("staticthings3d", tmp_path, mask_bg=True).pair(0, np.random.default_rng(0))
    assert not first.valid[:5].any()
    assert first.valid[5:].all() == bool(torch.all(scene.depth[0, 0, 5:] > 0))
    assert not second.valid[:5].any()
    assert {
        bool(open_dataset("staticthings3d", tmp_path, mask_bg="rand").pair(0, np.random.default_rng(s))[0].valid[0, 0])
        for s in range(12)
    } == {True, False}


def test_another_list_is_refused(tmp_path, scene):
    np.save(tmp_path / "staticthings_pairs.npy", np.zeros((3, 4)))
    with pytest.raises(UserError, match="rows of 4 values"):
        open_dataset("staticthings3d", tmp_path)
