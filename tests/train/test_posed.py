import pytest
import torch

from tests.train.datasets.layouts import write_posed_folder
from unposed.errors import UserError
from unposed.geometry.cameras import project
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.train.options import train_command
from unposed.train.pairs import images_of
from unposed.train.posed import PosedPairs


def test_batches_hold_consistent_geometry(tmp_path):
    write_posed_folder(tmp_path / "a")
    write_posed_folder(tmp_path / "b", seed=5, height=80, width=60)
    write_posed_folder(tmp_path / "c", seed=6)
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


def test_a_missing_photo_is_named(tmp_path):
    write_posed_folder(tmp_path / "set")
    (tmp_path / "set/001.png").unlink()
    with pytest.raises(UserError, match=r"001\.png"):
        PosedPairs(tmp_path / "set", [(64, 48)], 2)


def test_own_photos_train_a_network(tmp_path):
    write_posed_folder(tmp_path / "sets/room")
    summary = train_command(
        "mini", 0.08, tmp_path / "run", device="cpu", photos=tmp_path / "sets", side=32, scenes=2, tiny=True
    )
    assert summary.steps > 0
    assert "photos/point_error" in summary.validation
