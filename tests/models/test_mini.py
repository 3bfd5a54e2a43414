import itertools

import pytest
import torch

from tests.models import tiny
from unposed.errors import UserError
from unposed.io.checkpoints import Checkpoint, read_checkpoint
from unposed.models.base import PairModel
from unposed.models.batching import image_batch
from unposed.models.mini import Mini, MiniConfig


def test_the_default_fits_the_size_it_may_ship_with():
    with torch.device("meta"):
        network = Mini()
    assert 2 * sum(p.numel() for p in network.parameters()) <= 48e6


@pytest.mark.parametrize("sizes", [((32, 48), (32, 48)), ((48, 16), (32, 64))])
def test_maps_have_the_sizes_of_their_views(sizes):
    views = tiny.mini()(*(torch.rand(2, 3, *size) * 2 - 1 for size in sizes))
    for maps, size in zip(views, sizes, strict=True):
        assert maps["points"].shape == (2, *size, 3)
        assert maps["confidence"].shape == maps["descriptor_confidence"].shape == (2, *size)
        assert maps["descriptors"].shape == (2, *size, tiny.MINI.descriptor_width)
        assert maps["confidence"].min() >= 1
        torch.testing.assert_close(maps["descriptors"].norm(dim=-1), torch.ones(2, *size))


def test_gradients_reach_every_weight():
    network = tiny.mini()
    views = network(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    sum((maps[name] * torch.randn_like(maps[name])).sum() for maps in views for name in maps).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_forward_runs_under_autocast_and_gives_float32():
    with torch.autocast("cpu", torch.bfloat16):
        views = tiny.mini()(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    assert all(value.dtype == torch.float32 for maps in views for value in maps.values())


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        tiny.mini()(torch.rand(1, 3, 40, 32), torch.rand(1, 3, 32, 32))


def test_as_a_pair_model_it_equals_its_forward():
    network = tiny.mini()
    assert isinstance(network, PairModel)
    views = [tiny.view("a", 32, 48), tiny.view("b", 48, 32), tiny.view("c", 32, 48)]
    for (i, j), prediction in network.decode(views, network.encode(views), list(itertools.permutations(range(3), 2))):
        with torch.no_grad():
            view1, view2 = network(*(image_batch([views[k]], network.device) for k in (i, j)))
        torch.testing.assert_close(prediction.points_j, view2["points"][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(prediction.descriptors_i, view1["descriptors"][0], rtol=1e-4, atol=1e-5)
        assert prediction.descriptors_j.shape == (*views[j].size, tiny.MINI.descriptor_width)


def test_it_can_learn_one_pair():
    """A few steps on one pair with two slanted planes halve the error of either view."""
    torch.manual_seed(0)
    network = Mini(tiny.MINI)
    images = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    ramp = torch.linspace(0, 1, 32)[None, :, None, None].expand(1, 32, 32, 1)
    targets = [torch.cat([ramp, -ramp, 1 + slope * ramp], -1) for slope in (1.0, -0.5)]
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    history = []
    for _ in range(40):
        views = network(*images)
        errors = [(maps["points"] - target).norm(dim=-1).mean() for maps, target in zip(views, targets, strict=True)]
        history.append([float(error.detach()) for error in errors])
        optimiser.zero_grad()
        sum(errors).backward()
        optimiser.step()
    assert all(last < first / 2 for first, last in zip(history[0], history[-1], strict=True))


def test_a_file_gives_the_network_back(tmp_path):
    loaded = Mini.from_checkpoint(read_checkpoint(tiny.write_mini(tmp_path / "mini.safetensors")))
    assert loaded.config == tiny.MINI
    for name, tensor in tiny.mini().state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())


def test_files_of_other_systems_are_refused(tmp_path):
    checkpoint = read_checkpoint(tiny.write_mini(tmp_path / "mini.safetensors"))
    for extra in ({}, {**checkpoint.extra, "system": "composed"}, {**checkpoint.extra, "config": {"enc_width": 3}}):
        with pytest.raises(UserError):
            Mini.from_checkpoint(Checkpoint(checkpoint.path, checkpoint.tensors, extra))
    for change in ({"enc_depth": 10**7}, {"image_size": "big"}, {"descriptor_width": -1}, {"rope_base": None}):
        with pytest.raises(UserError, match="damaged"):
            MiniConfig.from_keywords({**vars(MiniConfig()), **change})
