import itertools
from argparse import Namespace

import pytest
import torch

from tests.models import tiny
from unposed.errors import UserError
from unposed.geometry.transforms import invert_rigid
from unposed.io.checkpoints import Checkpoint, read_checkpoint
from unposed.models import batching, registry
from unposed.models.base import PairModel, PoseModel
from unposed.models.reloc3r import Reloc3r, Reloc3rConfig
from unposed.nets.precision import prepare_for_inference

TEXT = f"Reloc3rRelpose({', '.join(f'{key}={value}' for key, value in tiny.RELOC3R_SIZES.items())})"


def _images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 2 - 1


def test_one_decoder_serves_both_pictures_so_swapping_them_swaps_the_poses():
    network = tiny.reloc3r()
    a, b = _images(1, 3, 32, 48), _images(1, 3, 48, 32)
    with torch.no_grad():
        there, back = network(a, b), network(b, a)
    torch.testing.assert_close(there.pose1, back.pose2)
    torch.testing.assert_close(there.pose2, back.pose1)
    assert (there.pose1 - invert_rigid(there.pose2)).abs().max() > 1e-3, "the two are independent predictions"


def test_orientations_mix_in_one_batch():
    network = tiny.reloc3r()
    images = _images(2, 3, 32, 64)
    shapes1, shapes2 = torch.tensor([[32, 64], [64, 32]]), torch.tensor([[64, 32], [64, 32]])
    with torch.no_grad():
        together = network(images, -images, shapes1, shapes2)
        portrait = network(images[1:].mT, -images[1:].mT)
        mixed = network(images[:1], -images[:1].mT)
    for k in (0, 1):
        torch.testing.assert_close(together[k][1:], portrait[k], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[k][:1], mixed[k], rtol=1e-4, atol=1e-5)


def test_the_forward_is_differentiable():
    network = Reloc3r(tiny.RELOC3R)
    poses = network(_images(1, 3, 32, 32), _images(1, 3, 32, 48))
    (poses.pose1[:, :3] * _images(1, 3, 4)).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_as_a_pose_model_it_equals_its_forward_and_encodes_every_view_once(monkeypatch):
    network = tiny.reloc3r()
    assert isinstance(network, PoseModel)
    assert not isinstance(network, PairModel)
    monkeypatch.setitem(batching._PIXELS_PER_BATCH, "cpu", 3 * 32 * 48)
    encoded, encode = [], network.encoder.forward
    monkeypatch.setattr(network.encoder, "forward", lambda x, r: encoded.append(len(x)) or encode(x, r))
    views = [tiny.view("a", 32, 48), tiny.view("b", 48, 32), tiny.view("c", 32, 48), tiny.view("d", 32, 32)]
    pairs = list(itertools.permutations(range(4), 2))
    found = dict(network.relative_poses(views, network.encode(views), pairs))
    assert sum(encoded) == len(views)
    assert set(found) == set(pairs)
    for (i, j), pose in found.items():
        with torch.no_grad():
            expected = network(*(batching.image_batch([views[k]], network.device) for k in (i, j)))
        assert pose.i_from_j.dtype == torch.float64
        torch.testing.assert_close(pose.j_from_i.float(), expected.pose1[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pose.i_from_j.float(), expected.pose2[0], rtol=1e-4, atol=1e-5)


def test_bfloat16_leaves_the_head_in_float32():
    network = tiny.reloc3r()
    views = [tiny.view("a", 32, 48), tiny.view("b", 48, 32)]
    exact = dict(network.relative_poses(views, network.encode(views), [(0, 1)]))[0, 1]
    prepare_for_inference(network, torch.device("cpu"), torch.bfloat16)
    assert {p.dtype for p in network.head.parameters()} == {torch.float32}
    rough = dict(network.relative_poses(views, network.encode(views), [(0, 1)]))[0, 1]
    torch.testing.assert_close(rough.i_from_j, exact.i_from_j, rtol=0, atol=0.1)


@pytest.mark.parametrize("layout", ["hub", "training", "final"])
def test_released_layouts_load_by_path(tmp_path, layout):
    names = tiny.reloc3r_names(tiny.reloc3r())
    path = tmp_path / "reloc3r.pth"
    training = {"optimizer": {"state": {}}, "scaler": {}} if layout == "training" else {}
    if layout == "hub":
        path = tiny.write_reloc3r(tmp_path / "hub")
    else:
        torch.save({"model": names, "args": Namespace(model=TEXT), "epoch": 3, "best_so_far": 0.1, **training}, path)
    loaded = registry.load_model(path, device="cpu", dtype="float32")
    assert isinstance(loaded, Reloc3r)
    assert loaded.config == tiny.RELOC3R
    expected = tiny.reloc3r().state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(("name", "size"), [("Reloc3r-512.pth", 512), ("Reloc3r-224.pth", 224)])
def test_files_without_a_configuration_have_the_released_sizes(tmp_path, monkeypatch, nested, name, size):
    """Read as they are; the network is made tiny by tiny defaults, since the released one has 427 million weights."""
    names = tiny.reloc3r_names(tiny.reloc3r())
    torch.save({"model": names} if nested else names, tmp_path / name)
    made = []
    monkeypatch.setattr(
        Reloc3rConfig,
        "from_keywords",
        lambda keywords: made.append(keywords) or Reloc3rConfig(**{**tiny.RELOC3R_SIZES, **keywords}),
    )
    loaded = registry.load_model(tmp_path / name, device="cpu", dtype="float32")
    assert made == [{"img_size": size}]
    assert loaded.image_rule.size == size
    assert loaded.name == name.removesuffix(".pth")


def test_tensors_that_do_not_fit_are_named(tmp_path):
    names = tiny.reloc3r_names(tiny.reloc3r())
    for tensors, message in (
        ({**names, "dec_blocks2.0.norm1.weight": torch.ones(1)}, r"dec_blocks2\.0\.norm1\.weight"),
        ({k: v for k, v in names.items() if k != "pose_head.fc_rot.bias"}, r"head\.rotation\.bias"),
    ):
        with pytest.raises(UserError, match=message):
            Reloc3r.from_checkpoint(Checkpoint(tmp_path / "x.pth", tensors, {"config": tiny.RELOC3R_SIZES}))


@pytest.mark.parametrize(
    "keywords",
    [
        {"enc_depth": 10**9},
        {"dec_embed_dim": 770},
        {"head_type": "dpt"},
        {"pos_embed": "cosine"},
        {"rotation": "quaternion"},
        {"img_size": "512"},
        {"img_size": 10**9},
        {"patch_size": 10**4},
        {"layernorm_eps": 1e-5},
        {"mlp_ratio": 10**6},
        {"res_conv_blocks": 10**6},
    ],
)
def test_configurations_of_no_reloc3r_are_refused(keywords):
    with pytest.raises(UserError):
        Reloc3rConfig.from_keywords(keywords)


def test_the_six_number_rotation_and_other_sizes_build():
    config = Reloc3rConfig.from_keywords({**tiny.RELOC3R_SIZES, "rotation": "6D", "mlp_ratio": 2, "res_conv_blocks": 1})
    with torch.no_grad():
        rotation = tiny.reloc3r(config)(_images(1, 3, 32, 32), _images(1, 3, 32, 32)).pose2[0, :3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), rtol=0, atol=1e-5)


def test_arguments_that_are_no_constructor_are_not_run(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": tiny.reloc3r_names(tiny.reloc3r()), "args": Namespace(model="import os"), "epoch": 1}, path)
    with pytest.raises(UserError, match="plain constructor"):
        Reloc3r.from_checkpoint(read_checkpoint(path))
