import json

import numpy as np
import pytest
from PIL import Image

from tests.train.datasets.layouts import (
    assert_reprojects,
    camera,
    is_view,
    rendered,
    write_arrays,
    write_depth_png,
    write_photo,
)
from unposed.errors import UserError
from unposed.train.datasets import open_dataset

FRAMES = [3, 7, 8]


@pytest.fixture
def scene(tmp_path):
    scene = rendered(views=3)
    folder = tmp_path / "apple/110_13051_23361"
    for k, frame in enumerate(FRAMES):
        intrinsics, pose = camera(scene, k)
        farthest = float(scene.depth[0, k].max())
        write_photo(folder / f"images/frame{frame:06d}.jpg", scene, k)
        write_arrays(
            folder / f"images/frame{frame:06d}.npz",
            camera_intrinsics=intrinsics,
            camera_pose=pose,
            maximum_depth=farthest,
        )
        write_depth_png(folder / f"depths/frame{frame:06d}.jpg.geometric.png", scene, k, 65535 / farthest)
        mask = np.zeros((48, 64), np.uint8)
        mask[10:30, 20:40], mask[0, 0] = 255, 20
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / f"masks/frame{frame:06d}.png")
    chosen = {"apple": {"110_13051_23361": FRAMES}, "empty": {}}
    (tmp_path / "selected_seqs_train.json").write_text(json.dumps(chosen))
    return scene


def test_pairs_are_frames_some_way_apart(tmp_path, scene):
    dataset = open_dataset("co3d", tmp_path)
    assert len(dataset) == sum(100 - distance for distance in range(5, 31, 5))
    first, second = dataset.pair(0, np.random.default_rng(0))  # frames 0 and 5 of 100, of which there are 3
    assert second.label == "co3d/apple/110_13051_23361"
    assert is_view(second, scene, 2)
    assert is_view(first, scene, [f"frame{frame:06d}.jpg" for frame in FRAMES].index(first.instance))
    assert_reprojects(first, second)
    assert first.valid.all()


def test_index_distances_are_jittered_by_four(tmp_path):
    (tmp_path / "selected_seqs_train.json").write_text(json.dumps({"apple": {"a": list(range(100))}}))
    dataset = open_dataset("co3d", tmp_path)
    frames: list[int] = []
    dataset._view = lambda folder, frame, masked, label: frames.append(frame)
    for index in range(len(dataset)):
        dataset.pair(index, np.random.default_rng(index))
    distances = np.diff(np.array(frames).reshape(-1, 2))[:, 0]
    assert (distances.min(), distances.max()) == (-3, 38)
    assert (min(frames), max(frames)) == (0, 99)
    assert set(distances % 5) == set(range(5))


@pytest.mark.parametrize(("mask_bg", "shares"), [(True, {True}), (False, {False}), ("rand", {True, False})])
def test_background_is_masked_in_both_views_or_in_none(tmp_path, scene, mask_bg, shares):
    dataset = open_dataset("co3d", tmp_path, mask_bg=mask_bg)
    found = set()
    for seed in range(12):
        first, second = dataset.pair(7, np.random.default_rng(seed))
        masked = [not view.valid.all() for view in (first, second)]
        assert masked[0] == masked[1]
        if masked[0]:
            assert first.valid.sum() == 400  # a mask value of 20 of 255 is not the object's
            assert first.valid[10:30, 20:40].all()
        found.add(masked[0])
    assert found == shares


def test_what_cannot_be_used_is_named(tmp_path, scene):
    with pytest.raises(UserError, match=r"selected_seqs_test\.json is missing"):
        open_dataset("co3d", tmp_path, split="test")
    with pytest.raises(UserError, match="mask_bg"):
        open_dataset("co3d", tmp_path, mask_bg="sometimes")
    (tmp_path / "apple/110_13051_23361/images/frame000008.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"frame000008\.npz"):
        open_dataset("co3d", tmp_path).pair(0, np.random.default_rng(0))
