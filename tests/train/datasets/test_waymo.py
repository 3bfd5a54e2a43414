import numpy as np

from tests.train.datasets.layouts import (
    assert_reprojects,
    camera,
    is_view,
    rendered,
    write_arrays,
    write_depth_exr,
    write_photo,
)
from unposed.train.datasets import open_dataset


def test_pairs_have_depth_where_the_lidar_hit(tmp_path):
    scene = rendered()
    hit = np.random.default_rng(0).random((48, 64)) < 0.5
    scene.depth[0, 0][~hit] = 0
    for k in range(2):
        stem = tmp_path / f"segment-1/{k:05d}_{k + 1}"
        intrinsics, pose = camera(scene, k)
        write_photo(stem.with_suffix(".jpg"), scene, k)
        write_depth_exr(stem.with_suffix(".exr"), scene, k)
        write_arrays(stem.with_suffix(".npz"), intrinsics=intrinsics, cam2world=pose, distortion=np.zeros(5))
    write_arrays(
        tmp_path / "waymo_pairs.npz",
        scenes=["segment-0", "segment-1"],
        frames=["00000_1", "00001_2"],
        pairs=np.array([[1, 0, 1]]),
    )
    dataset = open_dataset("waymo", tmp_path)
    assert dataset.metric
    first, second = dataset.pair(0, np.random.default_rng(0))
    assert is_view(first, scene, 0)
    assert is_view(second, scene, 1)
    np.testing.assert_array_equal(first.valid, hit)
    assert_reprojects(first, second)
