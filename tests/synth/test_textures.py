"""Textures: lookup by mip level, folders, the split, and the files they refuse."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unposed.errors import UserError
from unposed.synth.textures import Textures, load_textures, procedural_textures, procedural_tiles, sample


def _look(textures: Textures, number: int, u: float, v: float, footprint: float, mirror: bool = False) -> torch.Tensor:
    point = [torch.tensor([x]) for x in (u, v, footprint, footprint, mirror)]
    return sample(textures, torch.tensor([number], dtype=torch.int32), *point)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(random.integers(0, 255, (20, 33, 3), dtype=np.uint8)).save(tmp_path / f"tile_{i:02d}.png")
    for i in range(20):
        Image.fromarray(random.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(tmp_path / f"photo_{i:02d}.png")
    (tmp_path / "SOURCES.md").write_text("notes")
    return tmp_path


def test_texel_centres_return_the_texel_and_far_views_the_mean() -> None:
    textures, tile = procedural_textures(seed=4), procedural_tiles(72, seed=4)[5]
    colour = _look(textures, 5, (17 + 0.5) / 128, (90 + 0.5) / 128, 1e-4)
    assert torch.allclose(colour * 255, torch.from_numpy(tile[90, 17].astype(np.float32)), atol=1e-3)
    far = _look(textures, 5, 0.3, 0.8, 50.0)
    assert torch.allclose(far * 255, torch.from_numpy(tile.reshape(-1, 3).mean(0)).float(), atol=3)


def test_texture_coordinates_repeat() -> None:
    textures = procedural_textures(seed=4)
    assert torch.allclose(_look(textures, 3, 0.31, 0.62, 1e-3), _look(textures, 3, 5.31, -1.38, 1e-3), atol=0.01)


def test_mirrored_repeats_meet_without_a_seam() -> None:
    textures, tile = procedural_textures(seed=4), procedural_tiles(72, seed=4)[5]
    edge = torch.from_numpy(tile[90, 127].astype(np.float32))
    for u in (1 - 1e-4, 1.0, 1 + 1e-4):
        colour = _look(textures, 5, u, (90 + 0.5) / 128, 1e-4, mirror=True)
        assert torch.allclose(colour * 255, edge, atol=1)
    there, back = (_look(textures, 5, u, 0.4, 1e-4, mirror=True) for u in (0.8, 1.2))
    assert torch.allclose(there, back, atol=1e-3)


def test_splits_share_no_file_and_depend_on_names_alone(folder: Path) -> None:
    train, validation = load_textures(folder), load_textures(folder, split="validation")
    own = train.tiles - 48 + train.photos, validation.tiles - 48 + validation.photos
    assert sum(own) == 60
    assert own[0] > own[1] > 0
    assert torch.equal(train.texels, load_textures(folder).texels)


def test_a_folder_without_textures_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="tile_"):
        load_textures(tmp_path)


def test_a_damaged_image_is_a_user_error(folder: Path) -> None:
    for name in ("tile_00.png", "tile_01.png", "tile_02.png", "tile_03.png"):
        (folder / name).write_bytes(b"not an image")
    with pytest.raises(UserError, match="tile_0"):
        load_textures(folder)
