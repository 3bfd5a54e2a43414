import numpy as np
import pytest
from PIL import Image

from unposed.train.crop import PosedImage, training_view


def ramp(width: int, height: int, centre: tuple[float, float]) -> PosedImage:
    """A plane z = 1 + x / 2 whose colours are its pixel coordinates, seen by a camera of focal 50."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    slope = (x - centre[0]) / 50
    image = np.stack([x, y, np.zeros_like(x)], -1).astype(np.uint8)
    k = np.array([[50, 0, centre[0]], [0, 50, centre[1]], [0, 0, 1]], np.float32)
    return PosedImage(image, (1 / (1 - slope / 2)).astype(np.float32), k)


@pytest.mark.parametrize("resolution", [(96, 64), (48, 32), (160, 112)])
def test_rays_keep_their_depth(resolution):
    view = training_view(ramp(120, 90, (55.0, 47.0)), resolution, np.random.default_rng(0))
    assert view.size == resolution
    x, _ = np.meshgrid(np.arange(resolution[0]), np.arange(resolution[1]))
    slope = (x - view.intrinsics[0, 2]) / view.intrinsics[0, 0]
    error = np.abs(view.depth - 1 / (1 - slope / 2))
    assert error.max() < 1.5 * np.gradient(view.depth, axis=1).max()  # nearest neighbour: about a pixel
    original_x = 50 * slope + 55
    assert np.abs(view.image[..., 0] - original_x)[2:-2, 2:-2].max() < 1.0


def test_principal_point_ends_at_the_centre():
    view = training_view(ramp(120, 90, (52.0, 43.0)), (64, 48), np.random.default_rng(0))
    np.testing.assert_allclose(view.intrinsics[:2, 2], (31.5, 23.5), atol=1.0)


def test_portrait_photos_stay_portrait_and_square_ones_throw_a_coin():
    assert training_view(ramp(60, 120, (30, 60)), (64, 48), np.random.default_rng(0)).size == (48, 64)
    sizes = {training_view(ramp(100, 100, (50, 50)), (64, 48), np.random.default_rng(s)).size for s in range(8)}
    assert sizes == {(48, 64), (64, 48)}
    assert training_view(ramp(100, 100, (50, 50)), (64, 64), np.random.default_rng(0)).size == (64, 64)


def test_focal_jitter_zooms_in_only():
    plain = training_view(ramp(120, 90, (60, 45)), (64, 48), np.random.default_rng(0)).intrinsics[0, 0]
    zoomed = {
        round(float(training_view(ramp(120, 90, (60, 45)), (64, 48), np.random.default_rng(s), 32).intrinsics[0, 0]), 3)
        for s in range(6)
    }
    assert len(zoomed) > 3
    assert min(zoomed) >= plain - 1e-3


def test_the_filter_for_small_photos_can_be_chosen_and_leaves_large_ones_alone():
    step = ramp(120, 90, (60.0, 45.0))
    step.image[:, 60:] = 255
    for resolution, differ in (((160, 112), True), ((64, 48), False)):
        made = [
            training_view(step, resolution, np.random.default_rng(0), enlarge=how).image
            for how in (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
        ]
        assert (made[0] != made[1]).any() == differ
