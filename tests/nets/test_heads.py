import math

import pytest
import torch
import torch.nn.functional as F

from unposed.nets.heads import DptHead, LinearHead, regress_confidence, regress_points

INF = math.inf


def test_linear_head_lays_out_pixels_row_by_row():
    head = LinearHead(6, 2, 4)
    tokens = torch.randn(1, 6, 6)
    maps = head([tokens], (2, 3))
    raw = head.proj(tokens)[0].reshape(2, 3, 2, 4, 4)
    assert maps.shape == (1, 2, 8, 12)
    torch.testing.assert_close(maps[0, 1, 5, 9], raw[1, 2, 1, 1, 1])


def test_pointwise_layer_before_the_enlargement_equals_after():
    """DPT enlarges, then applies its 1x1 convolution; ours does it the other way round."""
    head = DptHead((0, 0, 0, 0), (8,) * 4, 4, features=16, layer_widths=(8, 8, 8, 8))
    x = torch.randn(1, 16, 5, 7)
    fusion = head.fusions[3]
    expected = fusion.out(F.interpolate(fusion.merge(x), scale_factor=2, mode="bilinear", align_corners=True))
    torch.testing.assert_close(fusion(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grid", [(4, 6), (3, 5), (1, 1), (5, 2)])
def test_dpt_head_takes_any_token_count(grid):
    head = DptHead((0, 1, 1, 2), (8, 4, 4, 4), 4, features=16, layer_widths=(8, 8, 8, 8), last_width=8)
    tokens = grid[0] * grid[1]
    layers = [torch.randn(2, tokens, 8), torch.randn(2, tokens, 4), torch.randn(2, tokens, 4)]
    assert head(layers, grid).shape == (2, 4, 16 * grid[0], 16 * grid[1])


def test_exponential_points_grow_with_the_norm_and_keep_the_direction():
    raw = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 0.0], [3.0, 0.0, -4.0]])
    points = regress_points(raw, ("exp", -INF, INF))
    torch.testing.assert_close(points[0], torch.tensor([0.0, 0.0, math.expm1(2)]))
    assert torch.equal(points[1], torch.zeros(3))
    torch.testing.assert_close(points[2], torch.tensor([0.6, 0.0, -0.8]) * math.expm1(5))


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="depth mode"):
        regress_points(torch.zeros(3), ("cubic", -INF, INF))
    with pytest.raises(ValueError, match="bounded"):
        regress_points(torch.zeros(3), ("exp", 0, 1))
    with pytest.raises(ValueError, match="confidence mode"):
        regress_confidence(torch.zeros(3), ("tanh", 0, 1))
