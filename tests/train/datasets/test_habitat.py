import json

import numpy as np
import pytest

from tests.train.datasets.layouts import assert_reprojects, camera, is_view, rendered, write_depth_exr, write_photo
from unposed.errors import UserError
from unposed.train.datasets import open_dataset


@pytest.fixture
def scene(tmp_path):
    scene = rendered(views=5)
    for k in range(5):
        stem = f"hm3d/00001/aa_{k + 1}"
        write_photo(tmp_path / f"{stem}.jpeg", scene, k)
        write_depth_exr(tmp_path / f"{stem}_depth.exr", scene, k)
        intrinsics, pose = camera(scene, k)
        facts = {"camera_intrinsics": intrinsics, "R_cam2world": pose[:3, :3], "t_cam2world": pose[:3, 3]}
        (tmp_path / f"{stem}_camera_params.json").write_text(json.dumps({n: v.tolist() for n, v in facts.items()}))
    (tmp_path / "Habitat_1_scenes_train.txt").write_text("hm3d/00001/aa\n")
    (tmp_path / "Habitat_20_scenes_train.txt").write_text("hm3d/00001/aa\nhm3d/00001/aa\n")
    return scene


def test_view_1_comes_with_any_other(tmp_path, scene):
    dataset = open_dataset("habitat", tmp_path)
    assert len(dataset) == 2  # of the longer list
    partners = set()
    for seed in range(30):
        first, second = dataset.pair(0, np.random.default_rng(seed))
        assert is_view(first, scene, 0)
        partners.add(next(k for k in range(5) if is_view(second, scene, k)))
    assert partners == {1, 2, 3, 4}
    assert_reprojects(*dataset.pair(1, np.random.default_rng(0)))


def test_what_is_missing_is_named(tmp_path, scene):
    with pytest.raises(UserError, match=r"Habitat_<N>_scenes_val\.txt"):
        open_dataset("habitat", tmp_path, split="val")
    (tmp_path / "hm3d/00001/aa_1_camera_params.json").write_text('{"camera_intrinsics": []}')
    with pytest.raises(UserError, match="aa_1_camera_params"):
        open_dataset("habitat", tmp_path).pair(0, np.random.default_rng(0))
