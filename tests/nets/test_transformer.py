import pytest
import torch
from torch import nn

from unposed.nets.positions import grid_positions, rotary_table
from unposed.nets.transformer import CrossAttention, Encoder, PatchEmbed, TwinDecoder


def _rotary(grid: tuple[int, int], head_dim: int):
    return rotary_table(grid_positions(grid), head_dim, 100)


def test_attention_is_the_textbook_formula():
    torch.manual_seed(0)
    layer = CrossAttention(16, 2)
    x, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    q, k, v = (
        f(t).unflatten(-1, (2, 8)).transpose(1, 2)
        for f, t in ((layer.projq, x), (layer.projk, memory), (layer.projv, memory))
    )
    expected = ((q @ k.mT / 8**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(layer(x, memory, None, None), layer.proj(expected), rtol=1e-5, atol=1e-6)


def test_patch_embedding_is_row_major_and_refuses_other_sizes():
    embed = PatchEmbed(16, 4)
    with torch.no_grad():
        embed.proj.weight.fill_(1 / 768)
        embed.proj.bias.zero_()
    image = torch.zeros(1, 3, 32, 48)
    image[..., 16:, :16] = 1
    tokens = embed(image)[0, :, 0]
    assert tokens.argmax() == 3
    assert embed.grid(image) == (2, 3)
    with pytest.raises(ValueError, match="multiples of 16"):
        embed.grid(torch.zeros(1, 3, 32, 40))


def test_only_the_last_encoder_layer_is_normalised():
    encoder = Encoder(16, 3, 2)
    layers = encoder.all_layers(5 * torch.randn(1, 6, 16), _rotary((2, 3), 8))
    spread = [float(layer.detach().std(-1, correction=0).mean()) for layer in layers]
    assert len(layers) == 3
    assert spread[-1] == pytest.approx(1, abs=1e-3)
    assert spread[0] > 1.5


def test_both_streams_read_the_layer_before():
    """With stream 2's blocks changed, block 1 of stream 1 stays the same and block 2 does not."""
    torch.manual_seed(1)
    decoder = TwinDecoder(16, 8, 2, 2)
    tokens = torch.randn(1, 6, 16), torch.randn(1, 6, 16)
    before, _ = decoder(*tokens, _rotary((2, 3), 4), _rotary((2, 3), 4))
    nn.init.normal_(decoder.blocks2[0].mlp.fc2.weight)
    after, _ = decoder(*tokens, _rotary((2, 3), 4), _rotary((2, 3), 4))
    assert torch.equal(before[0], tokens[0])
    assert torch.equal(before[1], after[1])
    assert not torch.allclose(before[2], after[2])
