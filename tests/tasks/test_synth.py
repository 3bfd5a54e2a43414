"""A synthesised folder: readable truth that agrees with its pictures, and clear refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unposed.errors import UserError
from unposed.geometry.cameras import pointmap_from_depth, project
from unposed.geometry.transforms import transform_points
from unposed.synth.textures import procedural_tiles
from unposed.tasks.synth import synthesize


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "table"
    summary = synthesize(out, photos=3, seed=4, width=96, height=72)
    assert (summary.out, summary.photos, summary.width, summary.height) == (out, 3, 96, 72)
    assert 0 < summary.nearest < summary.farthest
    return out


def _depth(folder: Path, entry: dict, scale: float) -> torch.Tensor:
    with Image.open(folder / entry["depth"]) as image:
        return torch.from_numpy(np.asarray(image).astype(np.float32)) * scale


def test_files_and_truth_have_the_format_of_photo_sets(folder: Path) -> None:
    truth = json.loads((folder / "gt.json").read_text())
    assert truth["metric"] is True
    assert sorted(truth["images"]) == ["000.jpg", "001.jpg", "002.jpg"]
    for name, entry in truth["images"].items():
        with Image.open(folder / name) as image:
            assert image.size == (entry["width"], entry["height"]) == (96, 72)
        assert (entry["cx"], entry["cy"]) == (47.5, 35.5)
        rotation = np.array(entry["world_to_camera"])[:3, :3]
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
        depth = _depth(folder, entry, truth["depth_scale"])
        assert entry["depth_valid_fraction"] == pytest.approx(float((depth > 0).float().mean()), abs=1e-3)


def test_depth_and_cameras_of_the_files_agree_between_photos(folder: Path) -> None:
    """Depth of one file, moved by the poses of the truth, is the depth of the next, to half a unit and a pixel."""
    truth = json.loads((folder / "gt.json").read_text())
    first, second = (truth["images"][name] for name in ("000.jpg", "001.jpg"))
    k = torch.tensor([[first["fx"], 0, first["cx"]], [0, first["fy"], first["cy"]], [0, 0, 1]])
    a, b = (_depth(folder, entry, truth["depth_scale"]) for entry in (first, second))
    to_b = torch.tensor(second["world_to_camera"], dtype=torch.float64) @ torch.linalg.inv(
        torch.tensor(first["world_to_camera"], dtype=torch.float64)
    )
    points = transform_points(to_b.float(), pointmap_from_depth(a, k)).reshape(-1, 3)
    column, row = project(points, k).round().long().unbind(-1)
    seen = (a.flatten() > 0) & (points[:, 2] > 0) & (column >= 0) & (column < 96) & (row >= 0) & (row < 72)
    error = (b[row[seen], column[seen]] - points[seen, 2]).abs() / points[seen, 2]
    assert seen.float().mean() > 0.5
    assert error.median() < 0.005


def test_same_seed_same_folder(folder: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "again", photos=3, seed=4, width=96, height=72)
    for name in ("000.jpg", "002_depth.png"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_textures_come_from_the_folder_given(folder: Path, tmp_path: Path) -> None:
    textures = tmp_path / "textures"
    textures.mkdir()
    for i, tile in enumerate(procedural_tiles(20, seed=77)):
        Image.fromarray(tile).save(textures / f"tile_{i}.png")
    synthesize(tmp_path / "other", photos=1, seed=4, width=96, height=72, textures=textures)
    assert (folder / "000.jpg").read_bytes() != (tmp_path / "other" / "000.jpg").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "castle"}, "tabletop"),
        ({"photos": 0}, "1 to 999"),
        ({"width": 8}, "sides from"),
        ({"textures": Path("/nowhere/at/all")}, "tile_"),
    ],
)
def test_refusals_say_what_to_do(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        synthesize(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        synthesize(tmp_path, photos=1)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
