import json

import numpy as np
import pytest
import torch
from PIL import Image

from unposed.errors import UserError
from unposed.geometry.cameras import pointmap_from_depth, project
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.synth import render_scenes
from unposed.train.loop import train_command
from unposed.train.pairs import images_of
from unposed.train.posed import PosedFolder, PosedPairs


def write_set(folder, seed=3, height=60, width=80, views=4, **changes):
    """A rendered scene as a folder of photos with cameras and depth."""
    folder.mkdir(parents=True)
    scene = render_scenes(seed, 1, views, height, width, kinds=("room",))
    images = {}
    for k in range(views):
        name = f"{k:03d}.png"
        pixels = (scene.images[0, k].permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / name)
        depth = (scene.depth[0, k] / 0.0005).clamp(0, 65535).round().numpy().astype(np.uint16)
        Image.fromarray(depth).save(folder / f"{k:03d}_depth.png")
        intrinsics = scene.intrinsics[0, k]
        images[name] = {
            "width": width,
            "height": height,
            "fx": float(intrinsics[0, 0]),
            "fy": float(intrinsics[1, 1]),
            "cx": float(intrinsics[0, 2]),
            "cy": float(intrinsics[1, 2]),
            "world_to_camera": invert_rigid(scene.world_from_camera[0, k]).tolist(),
            "depth": f"{k:03d}_depth.png",
        }
        images[name] = {key: value for key, value in (images[name] | changes).items() if value is not ...}
    (folder / "gt.json").write_text(json.dumps({"images": images, "depth_scale": 0.0005}))
    return scene


def test_a_set_comes_back_as_it_was_rendered(tmp_path):
    scene = write_set(tmp_path / "room")
    folder = PosedFolder(tmp_path / "room")
    assert len(folder) == 4
    view = folder.image(2)
    np.testing.assert_allclose(view.image / 255, scene.images[0, 2].permute(1, 2, 0).numpy(), atol=0.003)
    np.testing.assert_allclose(view.depth, scene.depth[0, 2].numpy(), atol=0.001)
    np.testing.assert_allclose(view.intrinsics, scene.intrinsics[0, 2].numpy(), rtol=1e-5)
    torch.testing.assert_close(folder.world_from_camera(2), scene.world_from_camera[0, 2], rtol=1e-4, atol=1e-4)


def test_batches_hold_consistent_geometry(tmp_path):
    write_set(tmp_path / "a")
    write_set(tmp_path / "b", seed=5, height=80, width=60)
    write_set(tmp_path / "c", seed=6)
    pairs = PosedPairs(tmp_path, [(64, 48), (64, 32)], batch=3, correspondences=128)
    cpu = torch.device("cpu")
    shapes = set()
    for step in range(8):
        batch = pairs.batch(step, 0.0, cpu)
        shapes.add(tuple(batch["valid_1"].shape))
        again = pairs.batch(step, 0.5, cpu)
        assert all(torch.equal(batch[name], again[name]) for name in batch)
        in_2 = transform_points(invert_rigid(batch["camera_1_from_2"]), batch["points_2"])
        x = project(in_2.flatten(1, 2), batch["intrinsics_2"])
        grid = torch.stack(torch.meshgrid(*(torch.arange(s) for s in batch["valid_2"].shape[:0:-1]), indexing="xy"), -1)
        valid = batch["valid_2"].flatten(1)
        assert (x - grid.flatten(0, 1)).norm(dim=-1)[valid].max() < 0.05
        first = batch["points_1"].flatten(1, 2).gather(1, batch["pixels_1"][..., None].expand(-1, -1, 3))
        second = batch["points_2"].flatten(1, 2).gather(1, batch["pixels_2"][..., None].expand(-1, -1, 3))
        gap = (first - second).norm(dim=-1) / first.norm(dim=-1)
        assert gap[batch["matched"]].median() < 0.05
    assert (3, 48, 64) in shapes
    assert (3, 64, 48) in shapes
    held_out = pairs.validation(cpu)["photos"]
    assert images_of(held_out)[0].shape[-1] == 48  # squares of about the same area


def test_disparity_gives_depth(tmp_path):
    write_set(tmp_path / "stereo", disparity="d.png", depth=...)
    Image.fromarray(np.full((60, 80), 320, np.uint16)).save(tmp_path / "stereo/d.png")
    facts = json.loads((tmp_path / "stereo/gt.json").read_text())
    facts |= {"disparity_scale": 1 / 16, "baseline_m": 0.5, "doffs_px_at_stored_size": 5.0}
    (tmp_path / "stereo/gt.json").write_text(json.dumps(facts))
    view = PosedFolder(tmp_path / "stereo").image(0)
    np.testing.assert_allclose(view.depth, view.intrinsics[0, 0] * 0.5 / 25, rtol=1e-5)


def test_overlap_is_what_both_cameras_see(tmp_path):
    scene = write_set(tmp_path / "room")
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
    write_set(tmp_path / "set", **changes)
    with pytest.raises(UserError, match=message):
        PosedFolder(tmp_path / "set").image(0)


def test_a_missing_photo_is_named(tmp_path):
    write_set(tmp_path / "set")
    (tmp_path / "set/001.png").unlink()
    with pytest.raises(UserError, match=r"001\.png"):
        PosedPairs(tmp_path / "set", [(64, 48)], 2)
    (tmp_path / "set/gt.json").write_text("{")
    with pytest.raises(UserError, match=r"gt\.json"):
        PosedFolder(tmp_path / "set")


def test_own_photos_train_a_network(tmp_path):
    write_set(tmp_path / "sets/room")
    summary = train_command(
        "mini", 0.08, tmp_path / "run", device="cpu", photos=tmp_path / "sets", side=32, scenes=2, tiny=True
    )
    assert summary.steps > 0
    assert "photos/point_error" in summary.validation
