from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from unposed.errors import UserError
from unposed.synth.textures import procedural_tiles
from unposed.train.warps import held_out, homography_pairs, load_photos, photometric, random_homographies


@pytest.fixture
def photos() -> torch.Tensor:
    tiles = [np.asarray(Image.fromarray(tile).resize((384, 384))) for tile in procedural_tiles(4, seed=3)]
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).contiguous()


def test_flow_says_where_pixels_went(photos: torch.Tensor):
    generator = torch.Generator().manual_seed(1)
    pairs = homography_pairs(photos, 4, 96, 1.0, generator)
    assert 0.1 < pairs.valid.float().mean() < 1
    assert (pairs.flow[pairs.valid] >= 0).all()
    assert (pairs.flow[pairs.valid] <= 95).all()
    smooth_a, smooth_b = (F.avg_pool2d(x, 5, 1, 2) for x in (pairs.images_a, pairs.images_b))
    back = F.grid_sample(smooth_b, (2 * pairs.flow + 1) / 96 - 1, align_corners=False)
    error = (back - smooth_a).abs().mean(1)[pairs.valid].mean()
    unaligned = (smooth_b - smooth_a).abs().mean(1)[pairs.valid].mean()
    assert error < 0.35 * unaligned


def test_strength_zero_changes_nothing(photos: torch.Tensor):
    generator = torch.Generator().manual_seed(1)
    torch.testing.assert_close(random_homographies(3, 64, 0.0, generator), torch.eye(3).expand(3, 3, 3))
    images = torch.rand(2, 3, 32, 32, generator=generator).clamp(0.01, 0.99)
    torch.testing.assert_close(photometric(images, 0.0, generator), images, atol=1e-5, rtol=1e-4)


def test_same_seed_same_pairs_and_colours_in_range(photos: torch.Tensor):
    def draw() -> torch.Tensor:
        generator = torch.Generator().manual_seed(5)
        pairs = homography_pairs(photos, 2, 64, 1.0, generator)
        return photometric(torch.cat([pairs.images_a, pairs.images_b]), 1.0, generator)

    images = draw()
    torch.testing.assert_close(images, draw())
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std() > 0.05


def test_photos_are_split_by_photo_not_by_crop(tmp_path: Path):
    for k in range(24):
        for name in (f"photo_a{k}", f"photo_a{k}-crop1"):
            Image.new("RGB", (40, 30), (k, 0, 0)).save(tmp_path / f"{name}.jpg", quality=100)
    Image.new("RGB", (80, 40)).save(tmp_path / "pano_x.jpg")
    train, validation = load_photos(tmp_path, validation=False), load_photos(tmp_path, validation=True)
    assert len(train) + len(validation) == 50
    assert len(validation) >= 2
    assert held_out("photo_a3") == held_out("photo_a3-crop2")


def test_a_folder_without_photos_says_so(tmp_path: Path):
    with pytest.raises(UserError, match="textures"):
        load_photos(tmp_path, validation=False)
