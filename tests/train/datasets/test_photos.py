from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.factories import box_scene
from tests.train.datasets.layouts import assert_reprojects, write_posed_folder
from unposed.errors import UserError
from unposed.io.colmap import write_colmap
from unposed.train.crop import training_view
from unposed.train.datasets import open_dataset
from unposed.train.datasets.colmap import ColmapFolder
from unposed.train.posed import PosedPairs

SIZE = (96, 128)


@pytest.fixture(scope="module")
def scene():
    """Whole photos of a room corner with exact depth and tracks."""
    return box_scene(views=4, size=SIZE, original_size=(SIZE[1], SIZE[0]))


def write_workspace(folder, scene, model="sparse/0", dense=(), shrink=1):
    """A COLMAP workspace with depth maps of the photos in ``dense``."""
    (folder / "images").mkdir(parents=True)
    write_colmap(folder / model, {item.view.name: item.camera for item in scene.views}, scene.tracks)
    for item in scene.views:
        Image.fromarray(item.view.image.numpy()).save(folder / "images" / item.view.name)
    for k in dense:
        item = scene.views[k]
        depth = item.depth.numpy()[shrink // 2 :: shrink, shrink // 2 :: shrink]
        path = folder / f"stereo/depth_maps/{item.view.name}.geometric.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{depth.shape[1]}&{depth.shape[0]}&1&".encode() + depth.astype("<f4").tobytes())


@pytest.mark.parametrize("model", ["sparse/0", "sparse"])
def test_dense_workspaces_give_dense_views(tmp_path, scene, model):
    write_workspace(tmp_path, scene, model, dense=(0, 1, 3))
    photos = ColmapFolder(tmp_path)
    assert len(photos) == 3  # photos without a depth map are left out
    view = photos.view(2)
    item = scene.views[3]
    np.testing.assert_array_equal(view.photo.image, item.view.image)
    np.testing.assert_allclose(view.photo.depth, item.depth, rtol=1e-6)
    np.testing.assert_allclose(view.photo.intrinsics, item.camera.intrinsics, rtol=1e-5)
    np.testing.assert_allclose(view.world_from_camera, item.camera.world_from_camera, atol=1e-5)
    assert_reprojects(photos.view(0), photos.view(1))


def test_photos_are_resized_to_smaller_depth_maps(tmp_path, scene):
    write_workspace(tmp_path, scene, dense=(0, 1), shrink=3)
    views = [ColmapFolder(tmp_path).view(k) for k in (0, 1)]
    assert views[0].photo.size == (43, 32)
    assert_reprojects(*views)


def test_sparse_models_give_depth_at_their_points_at_every_size(tmp_path, scene):
    write_workspace(tmp_path, scene)
    view = ColmapFolder(tmp_path).view(1)
    known = int((scene.tracks.view == 1).sum())
    assert 0.8 * known < view.valid.sum() <= known
    y, x = np.nonzero(view.valid)
    exact = scene.views[1].depth.numpy()
    assert np.median(np.abs(view.photo.depth[y, x] / exact[y, x] - 1)) < 0.02
    small = training_view(view.photo, (48, 32), np.random.default_rng(0))
    share = (small.depth > 0).sum() / view.valid.sum()
    assert share > 0.5  # nearest-neighbour scaling would leave a seventh
    rays = np.linalg.inv(small.intrinsics) @ np.stack(
        [*np.nonzero(small.depth)[::-1], np.ones((small.depth > 0).sum())]
    )
    points = (rays * small.depth[small.depth > 0]).T @ view.world_from_camera[:3, :3].T + view.world_from_camera[:3, 3]
    truth = scene.tracks.points[scene.tracks.track[scene.tracks.view == 1]].numpy()
    gaps = torch.cdist(torch.from_numpy(points).float(), torch.from_numpy(truth)).min(1).values
    assert gaps.median() < 0.05


def test_pairs_observe_the_same_points(tmp_path, scene):
    keep = (scene.tracks.view != 3) | (scene.tracks.track % 50 == 0)  # photo 3 observes next to nothing
    tracks = replace(
        scene.tracks, view=scene.tracks.view[keep], pixel=scene.tracks.pixel[keep], track=scene.tracks.track[keep]
    )
    write_workspace(tmp_path, replace(scene, tracks=tracks))
    found = set(ColmapFolder(tmp_path).pairs(0.1))
    assert {(0, 1), (1, 0), (1, 2), (3, 1)} <= found  # what 3 observes, 1 does too; not the other way
    assert (1, 3) not in found
    assert not any(i == j for i, j in found)


def test_sets_of_both_kinds_train_together(tmp_path, scene):
    write_workspace(tmp_path / "colmap", scene, dense=range(4))
    write_posed_folder(tmp_path / "posed")
    dataset = open_dataset("photos", tmp_path, metric=True)
    labels = {dataset.pair(k, np.random.default_rng(0))[0].label for k in range(len(dataset))}
    assert labels == {"colmap/colmap", "photos/posed"}
    batch = PosedPairs(tmp_path, [(48, 32)], batch=2).batch(0, 0.0, torch.device("cpu"))
    assert batch["valid_1"].any()


def test_what_cannot_be_used_says_why(tmp_path, scene):
    with pytest.raises(UserError, match="nothing to train on"):
        open_dataset("photos", tmp_path)
    write_workspace(tmp_path / "set", scene, dense=(1,))
    with pytest.raises(UserError, match="fewer than two"):
        open_dataset("photos", tmp_path)
    with pytest.raises(UserError, match="does not take these options"):
        open_dataset("photos", tmp_path, split="val")
    with pytest.raises(UserError, match="is missing"):
        open_dataset("photos", tmp_path / "none")
    with pytest.raises(UserError, match="no kind"):
        open_dataset("imagenet", tmp_path)
