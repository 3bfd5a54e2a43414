from itertools import pairwise

import pytest
import torch

from unposed.errors import UserError
from unposed.models.tiling import blending_weights, predict_tiled, tile_offsets


def _plane(images1: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """A network whose answer is the picture's first channel, and raw confidence from its second."""
    return images1[:, :2]


@pytest.mark.parametrize(("height", "width"), [(64, 90), (32, 64), (33, 65)])
def test_tiles_of_a_consistent_map_blend_into_that_map(height, width):
    image = torch.rand(1, 3, height, width)
    prediction, confidence = predict_tiled(_plane, image, image, (32, 64), 0.5, "conf_expsigmoid_15_3")
    torch.testing.assert_close(prediction, image[:, :1])
    torch.testing.assert_close(confidence, image[:, 1])


@pytest.mark.parametrize(("height", "width"), [(28, 50), (20, 400), (100, 30)])
def test_small_low_and_narrow_pictures_are_enlarged_and_values_shrink_back(height, width):
    image = torch.full((1, 3, height, width), 4.0)
    prediction, confidence = predict_tiled(_plane, image, image, (32, 64), 0.5, "conf_expbeta3")
    factor = confidence.shape[-1] / width
    assert prediction.shape == (1, 1, height, width)
    assert confidence.shape[-2] >= 32
    assert confidence.shape[-1] >= 64
    torch.testing.assert_close(prediction, torch.full_like(prediction, 4 / factor), rtol=1e-3, atol=1e-3)


def test_offsets_cover_the_axis():
    offsets = tile_offsets(1000, 384, 0.7)
    assert offsets[0] == 0
    assert offsets[-1] == 1000 - 384
    assert max(b - a for a, b in pairwise(offsets)) <= 0.3 * 384 + 1


@pytest.mark.parametrize("mode", ["conf_expsigmoid_1", "conf_expbeta", "mean", "conf_expsigmoid_a_b"])
def test_unknown_ways_of_blending(mode):
    with pytest.raises(UserError, match="blending"):
        blending_weights(torch.zeros(1), mode)
