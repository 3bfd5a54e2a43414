import numpy as np
import pytest

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


def _write(root, picture, depth, suffix):
    """Two scenes of two photos; the pairs of the second first."""
    scenes = [rendered(3), rendered(4)]
    names, cameras = [], []
    for s, scene in enumerate(scenes):
        for k in range(2):
            name = f"{s}{k}_31.5"
            write_photo(root / f"scene{s}/{picture}/{name}.jpg", scene, k)
            write_depth_png(root / f"scene{s}/{depth}/{name}.png", scene, k)
            names.append(name + suffix)
            cameras.append(camera(scene, k))
    write_arrays(
        root / "all_metadata.npz",
        scenes=["scene0", "scene1"],
        sceneids=[0, 0, 1, 1],
        images=names,
        intrinsics=np.stack([k for k, _ in cameras]),
        trajectories=np.stack([pose for _, pose in cameras]),
        pairs=np.array([[3, 2, 0.5], [0, 1, 0.9]]),
    )
    return scenes


@pytest.mark.parametrize(
    ("kind", "under", "picture", "depth", "suffix"),
    [
        ("scannetpp", ".", "images", "depth", ""),
        ("scannetpp", ".", "images", "depth", ".JPG"),
        ("arkitscenes", "Training", "vga_wide", "lowres_depth", ".png"),
    ],
)
def test_listed_pairs_come_back_as_they_were_rendered(tmp_path, kind, under, picture, depth, suffix):
    scenes = _write(tmp_path / under, picture, depth, suffix)
    dataset = open_dataset(kind, tmp_path)
    assert dataset.metric
    assert len(dataset) == 2
    first, second = dataset.pair(0, np.random.default_rng(0))
    assert first.label == f"{kind}/scene1"
    assert is_view(first, scenes[1], 1)
    assert is_view(second, scenes[1], 0)
    assert_reprojects(first, second)
    assert is_view(dataset.pair(1, np.random.default_rng(0))[0], scenes[0], 0)


def test_arkit_scenes_has_two_lists(tmp_path):
    _write(tmp_path / "Test", "vga_wide", "lowres_depth", ".png")
    assert len(open_dataset("arkitscenes", tmp_path, split="test")) == 2
    with pytest.raises(UserError, match="all_metadata"):
        open_dataset("arkitscenes", tmp_path)
    with pytest.raises(UserError, match="split val"):
        open_dataset("arkitscenes", tmp_path, split="val")


def test_a_list_that_does_not_fit_its_photos_is_refused(tmp_path):
    _write(tmp_path, "images", "depth", "")
    with np.load(tmp_path / "all_metadata.npz") as stored:
        arrays = dict(stored)
    np.savez(tmp_path / "all_metadata.npz", **arrays | {"pairs": np.array([[0, 4]])})
    with pytest.raises(UserError, match="all_metadata"):
        open_dataset("scannetpp", tmp_path)
    np.savez(tmp_path / "all_metadata.npz", **{k: v for k, v in arrays.items() if k != "pairs"})
    with pytest.raises(UserError, match="pairs"):
        open_dataset("scannetpp", tmp_path)
