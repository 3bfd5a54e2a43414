import pytest
import torch

from unposed.errors import UserError
from unposed.nets import precision
from unposed.nets.heads import LinearHead
from unposed.nets.transformer import Encoder


def test_transformer_layers_change_type_and_nothing_else():
    network = torch.nn.ModuleList([Encoder(16, 1, 2), LinearHead(16, 4, 16), torch.nn.Conv2d(4, 4, 3)])
    precision.prepare_for_inference(network, torch.device("cpu"), torch.bfloat16)
    assert network[0].blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert network[0].blocks[0].norm1.weight.dtype == torch.float32
    assert network[1].proj.weight.dtype == torch.float32
    assert network[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(p.requires_grad for p in network.parameters())


def test_the_sum_through_the_blocks_stays_float32():
    encoder = Encoder(16, 2, 2)
    x = torch.randn(1, 6, 16)
    exact = encoder(x, None)
    precision.prepare_for_inference(encoder, torch.device("cpu"), torch.bfloat16)
    rounded = encoder(x, None)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05


@pytest.mark.parametrize(("flags", "dtype"), [({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16)])
def test_auto_follows_the_processor(monkeypatch, flags, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    assert precision.choose_dtype("auto", torch.device("cpu")) == dtype


def test_what_is_not_there_is_said():
    with pytest.raises(UserError, match="no device"):
        precision.choose_device("tpu9")
    with pytest.raises(UserError, match="number format"):
        precision.choose_dtype("float8", torch.device("cpu"))
