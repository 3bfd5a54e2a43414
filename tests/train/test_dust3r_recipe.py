"""DUSt3R's published training with a network of a few thousand weights, on photos of one rendered room."""

import json
from dataclasses import replace

import pytest
import torch

from tests.models.tiny import DUST3R, dust3r, reference_names, write_dust3r
from tests.train.datasets.layouts import write_posed_folder
from unposed.errors import UserError
from unposed.models.dust3r import Dust3r
from unposed.models.registry import load_model
from unposed.train import dust3r_recipe
from unposed.train.checkpoint import load_checkpoint, load_training
from unposed.train.distributed import Processes
from unposed.train.dust3r_files import constructor_text, released_names, start_from
from unposed.train.dust3r_recipe import STAGES, dust3r_stage
from unposed.train.export import export_checkpoint
from unposed.train.losses import ConfidenceWeighted, PairOutput, PairTruth, Regression
from unposed.train.options import train_command
from unposed.train.pairs import images_of
from unposed.train.stage_options import StageOptions

CPU = torch.device("cpu")
MIXTURE = """
[512-linear]
resolutions = [[64, 48], [64, 32]]
batch = 2
accumulate = 2
epochs = 3
warmup_epochs = 1
train = [{ set = "photos", folder = "room", pairs = 8 }]
test = [{ set = "photos", folder = "room", pairs = 6 }]
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_posed_folder(root / "room")
    (root / "mixture.toml").write_text(MIXTURE)
    return root


@pytest.fixture(autouse=True)
def _small_network(monkeypatch):
    monkeypatch.setitem(dust3r_recipe.STAGES, "512-linear", DUST3R)


@pytest.fixture
def options(root):
    return StageOptions("512-linear", root, root / "mixture.toml", workers=0)


def run(options, out, **more):
    return train_command("dust3r", None, out, device="cpu", published=options, **more)


class OneOf(Processes):
    """A process that has no others to talk to, but says so."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__("cpu")
        self.rank, self.world = rank, world


def test_the_published_numbers(options):
    recipe = dust3r_stage(options, Processes("cpu"))
    settings = recipe.optimisation
    assert (settings.learning_rate, settings.final_rate) == (1e-4, 1e-6)
    assert (settings.betas, settings.weight_decay, settings.warmup) == ((0.9, 0.95), 0.05, 1 / 3)
    assert (settings.clip, settings.ema, settings.bfloat16, settings.accumulate) == (float("inf"), 0.0, False, 2)
    assert recipe.steps == 3 * (8 // 2) // 2
    assert dust3r_stage(replace(options, batch=1, accumulate=1, epochs=5), Processes("cpu")).steps == 40


def test_both_orders_of_a_pair_give_the_loss_of_encoding_each(options):
    recipe = dust3r_stage(options, Processes("cpu"))
    model, batch = recipe.build().eval(), recipe.batch(0, 0.0, CPU)
    assert len(batch["view_1"]) == 4
    assert len(batch["views"]) == 4
    maps = model(*images_of(batch), batch["true_shape_1"], batch["true_shape_2"])
    truth = PairTruth((batch["points_1"], batch["points_2"]), (batch["valid_1"], batch["valid_2"]))
    output = PairOutput((maps[0]["points"], maps[1]["points"]), (maps[0]["confidence"], maps[1]["confidence"]))
    expected = ConfidenceWeighted(Regression())(output, truth).total
    assert recipe.loss(model, batch)["total"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_two_processes_make_the_loss_of_one_with_a_batch_of_both(options):
    """Although their photos know the depth of different numbers of pixels."""
    one = dust3r_stage(replace(options, batch=4), Processes("cpu"))
    two = [dust3r_stage(options, OneOf(rank, 2)) for rank in range(2)]
    model = one.build().eval()
    whole = one.batch(1, 0.0, CPU)
    parts = [recipe.batch(2 + rank, 0.0, CPU) for rank, recipe in enumerate(two)]
    for k, batch in enumerate([whole, *parts]):  # holes, not everywhere the same
        for name in ("valid_1", "valid_2"):
            batch[name] = batch[name] & (batch["views"][batch[name.replace("valid", "view")], 0] > -0.2)
        batch["weight"] = batch["valid_1"].sum()
        assert k == 0 or batch["weight"] < whole["weight"]
    weights = torch.stack([batch["weight"] for batch in parts])
    assert weights[0] != weights[1]
    assert weights.sum() == whole["weight"]
    losses = torch.stack([one.loss(model, batch)["total"] for batch in parts])
    expected = one.loss(model, whole)["total"].item()
    assert (losses * weights / weights.sum()).sum().item() == pytest.approx(expected, rel=1e-5)


def test_batches_come_by_their_number(options):
    recipe, again = (dust3r_stage(options, Processes("cpu")) for _ in range(2))
    in_order = [recipe.batch(k, 0.0, CPU)["views"] for k in range(6)]
    assert torch.equal(again.batch(5, 0.0, CPU)["views"], in_order[5])
    assert torch.equal(again.batch(1, 0.0, CPU)["views"], in_order[1])
    before = torch.get_rng_state()
    again.batch(0, 0.0, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_cut_run_goes_on_to_the_same_weights_and_is_released(options, tmp_path, monkeypatch):
    summary = run(options, tmp_path / "whole")
    assert summary.steps == 6
    assert summary.validation["test_loss"] == summary.validation["photos/error_median"]

    class Killed(Exception):
        pass

    ordinary = dust3r_recipe.Dust3rTraining.batch

    def killed(self, index, progress, device):
        if index == 7:
            raise Killed
        return ordinary(self, index, progress, device)

    monkeypatch.setattr("unposed.train.options._LARGE_CHECKPOINT_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(dust3r_recipe.Dust3rTraining, "batch", killed)
        with pytest.raises(Killed):
            run(options, tmp_path / "cut")
    assert load_checkpoint(tmp_path / "cut")[1]["step"] == 3
    run(options, tmp_path / "cut")
    whole, cut = (load_training(tmp_path / name)["learner"]["weights"] for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)

    export_checkpoint(tmp_path / "whole", tmp_path / "dust3r.pth")
    export_checkpoint(tmp_path / "whole", tmp_path / "dust3r.safetensors")
    best = load_checkpoint(tmp_path / "whole/best")[0]
    for file in ("dust3r.pth", "dust3r.safetensors"):
        loaded = load_model(tmp_path / file, device="cpu", dtype="float32")
        assert isinstance(loaded, Dust3r)
        assert all(torch.equal(best[name], tensor) for name, tensor in loaded.state_dict().items())


def test_the_encoder_can_be_frozen(options, tmp_path):
    start = write_dust3r(tmp_path)
    run(replace(options, freeze="encoder", start=str(start), epochs=1), tmp_path / "run")
    before, after = dust3r().state_dict(), load_checkpoint(tmp_path / "run")[0]
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "head1", "head2"}


def test_training_starts_from_croco_with_its_decoder_in_both_streams(tmp_path):
    names = reference_names(dust3r())
    croco = {n: t for n, t in names.items() if not n.startswith(("dec_blocks2", "downstream_head"))}
    croco["prediction_head.weight"] = torch.zeros(768, 16)
    torch.save({"croco_kwargs": {}, "model": croco}, tmp_path / "croco.pth")
    torch.manual_seed(5)
    network = Dust3r(replace(DUST3R, head_type="linear"))
    head = network.head1.proj.weight.clone()
    start_from(network, str(tmp_path / "croco.pth"))
    weights = network.state_dict()
    assert torch.equal(weights["encoder.blocks.1.attn.qkv.weight"], names["enc_blocks.1.attn.qkv.weight"])
    for stream in ("blocks1", "blocks2"):
        assert torch.equal(weights[f"decoder.{stream}.1.mlp.fc1.weight"], names["dec_blocks.1.mlp.fc1.weight"])
    assert torch.equal(weights["head1.proj.weight"], head)


def test_a_dpt_stage_starts_from_a_linear_one_with_new_heads(tmp_path):
    sizes = replace(DUST3R, dec_depth=12)
    torch.manual_seed(1)
    linear, dpt = Dust3r(sizes), Dust3r(replace(sizes, head_type="dpt"))
    torch.save({"model": released_names(dict(linear.state_dict()), sizes)}, tmp_path / "linear.pth")
    head = dpt.head1.conv1.weight.clone()
    start_from(dpt, str(tmp_path / "linear.pth"))
    assert torch.equal(dpt.decoder.blocks2[11].mlp.fc1.weight, linear.decoder.blocks2[11].mlp.fc1.weight)
    assert torch.equal(dpt.head1.conv1.weight, head)


def test_a_start_that_does_not_fit_is_refused(tmp_path):
    start = str(write_dust3r(tmp_path))
    with pytest.raises(UserError, match="another size"):
        start_from(Dust3r(replace(DUST3R, enc_embed_dim=64)), start)
    with pytest.raises(UserError, match="lacks"):
        start_from(Dust3r(replace(DUST3R, enc_depth=3)), start)
    with pytest.raises(UserError, match="DUSt3R family"):
        start_from(dust3r(), "classic")


@pytest.mark.parametrize(
    ("stage", "released"),
    [
        ("224-linear", "DUSt3R_ViTLarge_BaseDecoder_224_linear"),
        ("512-dpt", "DUSt3R_ViTLarge_BaseDecoder_512_dpt"),
    ],
)
def test_exported_names_and_shapes_are_those_of_the_released_files(stage, released, pytestconfig):
    goldens = pytestconfig.getoption("goldens")
    manifest = json.loads((goldens / "dust3r/released.json").read_text())[released]["manifest"]
    with torch.device("meta"):
        network = Dust3r(STAGES[stage])
    named = released_names(dict(network.state_dict()), network.config)
    assert {name: list(tensor.shape) for name, tensor in named.items()} == manifest
    assert f"head_type='{network.config.head_type}'" in constructor_text(network.config)


def test_options_that_do_not_fit_are_refused(options, tmp_path):
    (tmp_path / "other.toml").write_text(MIXTURE.replace("512-linear", "224-linear"))
    for changed, more, message in (
        (replace(options, data=None), {}, "--stage and --data"),
        (replace(options, stage=None), {}, "--stage and --data"),
        (replace(options, mixture=tmp_path / "other.toml"), {}, "no stage"),
        (replace(options, batch=0), {}, "--batch"),
        (replace(options, data=tmp_path / "nothing"), {}, "missing"),
        (options, {"side": 64}, "procedural"),
        (options, {"steps": 0}, "--steps"),
    ):
        with pytest.raises(UserError, match=message):
            run(changed, tmp_path / "out", **more)
