import json

import numpy as np
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
from unposed.train.datasets import open_dataset


def test_a_sequence_comes_back_as_it_was_rendered(tmp_path):
    scene = rendered()
    folder = tmp_path / "bus/scene_004"
    for k in range(2):
        intrinsics, pose = camera(scene, k)
        write_photo(folder / f"rgb/{k:05d}.jpg", scene, k)
        write_depth_png(folder / f"depth/{k:05d}.png", scene, k)
        write_arrays(folder / f"metadata/{k:05d}.npz", camera_intrinsics=intrinsics, camera_pose=pose)
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.eye(48, 64, dtype=np.uint8) * 255).save(folder / f"masks/{k:05d}.png")
    (tmp_path / "selected_seqs_test.json").write_text(json.dumps({"bus": {"scene_004": ["00000", "00001"]}}))
    dataset = open_dataset("wildrgbd", tmp_path, split="test")
    assert dataset.metric
    for seed in range(20):
        first, second = dataset.pair(0, np.random.default_rng(seed))  # frames 0 and 5, each moved by up to 4
        if first.instance == "00000.jpg":
            break
    assert is_view(first, scene, 0)
    assert is_view(second, scene, 1)
    assert_reprojects(first, second)
    masked = open_dataset("wildrgbd", tmp_path, split="test", mask_bg=True)
    assert masked.pair(0, np.random.default_rng(0))[0].valid.sum() == 48
