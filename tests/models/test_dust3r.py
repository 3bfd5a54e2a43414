import itertools

import pytest
import torch

from tests.models import tiny
from unposed.errors import UserError
from unposed.io.checkpoints import Checkpoint, read_checkpoint
from unposed.models import batching
from unposed.models.base import PairModel
from unposed.models.dust3r import Dust3r, Dust3rConfig


def _images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 2 - 1


def test_a_transposed_portrait_gives_what_the_portrait_gives():
    network = tiny.dust3r()
    portraits, landscape = _images(2, 3, 64, 32), _images(2, 3, 32, 64)
    with torch.no_grad():
        native, _ = network(portraits, landscape)
        stored, _ = network(portraits.mT, landscape, torch.tensor([[64, 32], [64, 32]]), torch.tensor([[32, 64]] * 2))
    torch.testing.assert_close(stored["points"], native["points"].transpose(1, 2), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(stored["confidence"], native["confidence"].mT, rtol=1e-4, atol=1e-6)


def test_orientations_mix_in_one_batch():
    network = tiny.dust3r()
    images1, images2 = _images(3, 3, 32, 64), _images(3, 3, 32, 64)
    shapes1 = torch.tensor([[32, 64], [64, 32], [32, 64]])
    shapes2 = torch.tensor([[64, 32], [64, 32], [32, 64]])
    with torch.no_grad():
        together = network(images1, images2, shapes1, shapes2)
        for k in range(3):
            one = slice(k, k + 1)
            alone = network(images1[one], images2[one], shapes1[one], shapes2[one])
            for a, b in zip(together, alone, strict=True):
                torch.testing.assert_close(a["points"][one], b["points"], rtol=1e-4, atol=1e-6)


def test_a_symmetrised_batch_encodes_each_picture_once(monkeypatch):
    network = tiny.dust3r()
    a, b = _images(2, 3, 32, 48), -_images(2, 3, 32, 48)
    images1, images2 = (torch.stack(pair, 1).flatten(0, 1) for pair in ((a, b), (b, a)))
    encoded = []
    encode = network.encoder.forward
    with torch.no_grad():
        plain = network(images1, images2)
        monkeypatch.setattr(network.encoder, "forward", lambda x, r: encoded.append(len(x)) or encode(x, r))
        symmetric = network(images1, images2, symmetrized=True)
    assert sum(encoded) == 4
    for one, other in zip(plain, symmetric, strict=True):
        torch.testing.assert_close(one["points"], other["points"], rtol=1e-4, atol=1e-6)


def test_the_forward_is_differentiable():
    network = Dust3r(tiny.DUST3R)
    view1, view2 = network(_images(1, 3, 32, 32), _images(1, 3, 32, 32))
    (view1["points"].sum() + view2["confidence"].sum()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []


def test_as_a_pair_model_it_equals_its_forward(monkeypatch):
    network = tiny.dust3r()
    assert isinstance(network, PairModel)
    monkeypatch.setitem(batching._PIXELS_PER_BATCH, "cpu", 3 * 32 * 48)
    views = [tiny.view("a", 32, 48), tiny.view("b", 48, 32), tiny.view("c", 32, 48), tiny.view("d", 32, 48)]
    pairs = list(itertools.permutations(range(4), 2))
    predictions = dict(network.decode(views, network.encode(views), pairs))
    assert set(predictions) == set(pairs)
    for (i, j), prediction in predictions.items():
        images = [batching.image_batch([views[k]], network.device) for k in (i, j)]
        with torch.no_grad():
            view1, view2 = network(*images)
        assert prediction.points_i.shape == (*views[i].size, 3)
        torch.testing.assert_close(prediction.points_i, view1["points"][0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(prediction.points_j, view2["points"][0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(prediction.confidence_j, view2["confidence"][0], rtol=1e-4, atol=1e-6)
        assert prediction.descriptors_i is None


def test_predictions_may_take_part_in_autograd():
    network = tiny.dust3r()
    views = [tiny.view("a", 32, 32), tiny.view("b", 32, 32)]
    ((_, prediction),) = network.decode(views, network.encode(views), [(0, 1)])
    scale = torch.ones((), requires_grad=True)
    (scale * prediction.points_i).square().sum().backward()
    assert scale.grad is not None


def test_released_containers_load_and_agree(tmp_path):
    expected = tiny.dust3r().state_dict()
    for path in (tiny.write_dust3r(tmp_path), tiny.write_hub_dust3r(tmp_path / "hub")):
        loaded = Dust3r.from_checkpoint(read_checkpoint(path)).state_dict()
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_one_decoder_in_the_file_starts_both(tmp_path):
    checkpoint = read_checkpoint(tiny.write_dust3r(tmp_path))
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("dec_blocks2.")}
    loaded = Dust3r.from_checkpoint(Checkpoint(checkpoint.path, tensors, checkpoint.extra))
    name = "attn.qkv.weight"
    assert torch.equal(loaded.decoder.blocks1[1].get_parameter(name), loaded.decoder.blocks2[1].get_parameter(name))


def test_tensors_of_another_model_are_named(tmp_path):
    checkpoint = read_checkpoint(tiny.write_dust3r(tmp_path))
    for tensors, message in (
        ({**checkpoint.tensors, "local_head.weight": torch.ones(1)}, r"local_head\.weight"),
        ({k: v for k, v in checkpoint.tensors.items() if k != "enc_norm.bias"}, r"encoder\.norm\.bias"),
    ):
        with pytest.raises(UserError, match=message):
            Dust3r.from_checkpoint(Checkpoint(checkpoint.path, tensors, checkpoint.extra))


@pytest.mark.parametrize(
    "keywords",
    [
        {"enc_depth": 10**9},
        {"enc_depth": "24"},
        {"dec_embed_dim": 770},
        {"dec_num_heads": 0},
        {"head_type": "dpt", "dec_depth": 4},
        {"head_type": "catmlp"},
        {"pos_embed": "cosine"},
        {"output_mode": "pts3d+desc24"},
        {"two_confs": True},
        {"pos_embed": 100},
        {"img_size": "512"},
        {"img_size": [512, 10**9]},
        {"depth_mode": ["exp"]},
        {"depth_mode": ["cubic", 0, 1]},
        {"conf_mode": "exp"},
        {"head_type": ["dpt"]},
    ],
)
def test_configurations_of_no_dust3r_are_refused(keywords):
    with pytest.raises(UserError):
        Dust3rConfig.from_keywords(keywords)
