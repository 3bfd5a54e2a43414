import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.train.datasets.layouts import write_posed_folder
from unposed.errors import UserError
from unposed.geometry.cameras import pointmap_from_depth, project
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.train.datasets.posed_folder import PosedFolder


def test_a_set_comes_back_as_it_was_rendered(tmp_path):
    scene = write_posed_folder(tmp_path / "room")
    folder = PosedFolder(tmp_path / "room")
    assert len(folder) == 4
    view = folder.view(2).photo
    np.testing.assert_allclose(view.image / 255, scene.images[0, 2].permute(1, 2, 0).numpy(), atol=0.003)
    np.testing.assert_allclose(view.depth, scene.depth[0, 2].numpy(), atol=0.001)
    np.testing.assert_allclose(view.intrinsics, scene.intrinsics[0, 2].numpy(), rtol=1e-5)
    torch.testing.assert_close(folder.world_from_camera(2), scene.world_from_camera[0, 2], rtol=1e-4, atol=1e-4)


def test_disparity_gives_depth(tmp_path):
    write_posed_folder(tmp_path / "stereo", disparity="d.png", depth=...)
    Image.fromarray(np.full((60, 80), 320, np.uint16)).save(tmp_path / "stereo/d.png")
    facts = json.loads((tmp_path / "stereo/gt.json").read_text())
    facts |= {"disparity_scale": 1 / 16, "baseline_m": 0.5, "doffs_px_at_stored_size": 5.0}
    (tmp_path / "stereo/gt.json").write_text(json.dumps(facts))
    view = PosedFolder(tmp_path / "stereo").view(0).photo
    np.testing.assert_allclose(view.depth, view.intrinsics[0, 0] * 0.5 / 25, rtol=1e-5)


def test_overlap_is_what_both_cameras_see(tmp_path):
    scene = write_posed_folder(tmp_path / "room")
    found = PosedFolder(tmp_path / "room").pairs(least_overlap=0.1)
    points = pointmap_from_depth(scene.depth[0], scene.intrinsics[0])
    for i, j in found:
        j_from_i = invert_rigid(scene.world_from_camera[0, j]) @ scene.world_from_camera[0, i]
        moved = transform_points(j_from_i, points[i])
        x, y = project(moved.flatten(0, 1), scene.intrinsics[0, j]).unbind(-1)
        inside = (x > -1) & (x < 80) & (y > -1) & (y < 60) & (moved[..., 2].flatten() > 0)
        assert inside.float().mean() > 0.08
    assert all(i != j for i, j in found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"depth": ...}, "fewer than two"), ({"world_to_camera": None}, "fewer than two"), ({"fx": ...}, "fx")],
)
def test_sets_that_cannot_be_used_say_why(tmp_path, changes, message):
    write_posed_folder(tmp_path / "set", **changes)
    with pytest.raises(UserError, match=message):
        PosedFolder(tmp_path / "set").view(0)


def test_a_missing_photo_is_named(tmp_path):
    write_posed_folder(tmp_path / "set")
    (tmp_path / "set/001.png").unlink()
    with pytest.raises(UserError, match=r"001\.png"):
        PosedFolder(tmp_path / "set").view(1)
    (tmp_path / "set/gt.json").write_text("{")
    with pytest.raises(UserError, match=r"gt\.json"):
        PosedFolder(tmp_path / "set")
