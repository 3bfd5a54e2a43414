"""The recipes of pair networks on procedural scenes, at 64 pixels."""

import itertools

import pytest
import torch

from unposed.errors import UserError
from unposed.io.checkpoints import read_checkpoint
from unposed.models.mini import Mini
from unposed.train.export import export_checkpoint
from unposed.train.options import train_command
from unposed.train.pairs import images_of, rows
from unposed.train.recipes import curriculum, dust3r_recipe, every_pair, every_view_once, mini_recipe
from unposed.train.scenes import ScenePairs, Stage
from unposed.train.validation import evaluate_pairs, picture

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recipe():
    return mini_recipe(side=64, scenes=2, tiny=True)


@pytest.fixture(scope="module")
def small():
    return mini_recipe(side=32, scenes=1, tiny=True)


@pytest.fixture(scope="module")
def batch(recipe):
    return recipe.batch(0, 0.0, CPU)


def perfect(batch):
    """A network that knows the answer, up to scale, for the first pairs of a batch."""

    def forward(images_1, images_2):
        count = len(images_1)
        descriptors = [torch.randn(count, 64, 64, 16) for _ in range(2)]
        rows = torch.arange(count)[:, None]
        shared = descriptors[0].flatten(1, 2)[rows, batch["pixels_1"][:count]]
        descriptors[1].flatten(1, 2)[rows, batch["pixels_2"][:count]] = shared
        return tuple(
            {
                "points": 3 * batch[f"points_{k}"][:count],
                "confidence": 1 + batch[f"valid_{k}"][:count].float(),
                "descriptors": torch.nn.functional.normalize(d, dim=-1),
            }
            for k, d in zip((1, 2), descriptors, strict=True)
        )

    return forward


def test_batches_follow_from_the_step_alone(recipe, batch):
    again, other = recipe.batch(0, 0.0, CPU), recipe.batch(1, 0.0, CPU)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(batch["views"], other["views"])
    assert batch["points_1"].shape == (12, 64, 64, 3)
    assert batch["views"].shape == (8, 3, 64, 64)
    assert batch["matched"].float().mean() > 0.4


def test_steps_rendered_together_have_their_own_scenes():
    source = ScenePairs(None, [Stage(1.0, ((32, 32),), scenes=2, pairs=2, ahead=3)], [(32, 32)], 4)
    batches = [source.batch(step, 0.0, CPU) for step in range(4)]
    for first, second in itertools.combinations(batches, 2):
        assert first["views"].shape == (8, 3, 32, 32)
        assert not torch.equal(first["camera_1_from_2"], second["camera_1_from_2"])
    fresh = ScenePairs(None, [Stage(1.0, ((32, 32),), scenes=2, pairs=2, ahead=3)], [(32, 32)], 4)
    assert torch.equal(fresh.batch(1, 0.0, CPU)["views"], batches[1]["views"])


def test_a_view_encoded_once_gives_what_every_pair_gives(recipe, batch):
    model = recipe.build().eval()
    batch = rows(batch, 0, 4)
    with torch.no_grad():
        once, each = every_view_once(model, batch), every_pair(model, batch)
    for maps_once, maps_each in zip(once, each, strict=True):
        for name in maps_each:
            torch.testing.assert_close(maps_once[name], maps_each[name], rtol=1e-4, atol=1e-5)


def test_gradient_steps_lower_the_loss_on_a_batch(small):
    model, batch = small.build(), small.batch(0, 0.0, CPU)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    totals = []
    for _ in range(25):
        losses = small.loss(model, batch)
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        totals.append(losses["total"].item())
    assert totals[-1] < 0.7 * totals[0]
    assert {"metric_points_1", "confidence_2", "matching"} <= set(losses)


def test_the_loss_is_one_graph_for_the_compiler(small):
    model, batch = small.build(), small.batch(0, 0.0, CPU)
    traced = torch.compile(lambda b: small.loss(model, b), backend="eager", fullgraph=True)(batch)
    plain = small.loss(model, batch)
    assert traced["total"].item() == pytest.approx(plain["total"].item(), rel=1e-5)


def test_validation_gives_full_marks_to_the_truth_and_none_to_chance(batch):
    marks = evaluate_pairs(perfect(batch), batch)
    assert marks["point_error"] < 1e-4
    assert marks["focal_error"] < 1e-3
    assert marks["auc@5"] > 0.97
    assert marks["match_inliers"] > 0.95

    def chance(images_1, images_2):
        maps = {"points": torch.randn(len(images_1), 64, 64, 3), "confidence": torch.ones(len(images_1), 64, 64)}
        maps["descriptors"] = torch.randn(len(images_1), 64, 64, 8)
        return maps, maps

    marks = evaluate_pairs(chance, batch)
    assert marks["point_error"] > 0.5
    assert marks["auc@30"] < 0.1
    assert marks["match_inliers"] < 0.05


def test_preview_is_a_row_per_pair(batch):
    assert picture(perfect(batch), batch, count=3).shape == (3 * 64, 8 * 64, 3)


def test_validation_scenes_are_not_training_scenes(small):
    held_out, again = (small.source.validation(CPU)["32x32"] for _ in range(2))
    assert torch.equal(held_out["views"], again["views"])
    assert len(held_out["points_1"]) == 32


def test_curriculum_ends_with_mixed_aspect_ratios():
    stages, _ = curriculum(None, None)
    assert stages[-1].until == 1.0
    assert {h > w for h, w in stages[-1].shapes} == {True, False}
    assert all(side % 16 == 0 for stage in stages for shape in stage.shapes for side in shape)
    assert [s.until for s in stages] == sorted(s.until for s in stages)


def test_the_whole_road_from_training_to_a_loaded_model(tmp_path, small):
    summary = train_command("mini", 0.1, tmp_path / "run", device="cpu", side=32, scenes=1, tiny=True)
    assert summary.steps > 0
    resumed = train_command(
        "mini", 0.1, tmp_path / "run", resume=tmp_path / "run", device="cpu", side=32, scenes=1, tiny=True
    )
    assert resumed.steps > summary.steps
    export_checkpoint(tmp_path / "run", tmp_path / "mini.safetensors")
    model = Mini.from_checkpoint(read_checkpoint(tmp_path / "mini.safetensors"))
    with torch.no_grad():
        maps_1, _ = model(*images_of(small.batch(0, 0.0, CPU)))
    assert maps_1["points"].isfinite().all()
    marks = small.validate(model.eval(), CPU)
    assert marks["32x32/point_error"] == pytest.approx(resumed.validation["32x32/point_error"], rel=0.05)


def test_the_dust3r_recipe_has_the_released_size():
    recipe = dust3r_recipe(None, side=32)
    with torch.device("meta"):
        network = recipe.build()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(532.3, abs=1.0)
    assert recipe.metadata()["system"] == "dust3r"


def test_options_that_do_not_fit_are_refused(tmp_path):
    for options, message in (
        ({"recipe": "mini", "side": 50}, "multiple of 16"),
        ({"recipe": "composed"}, "--textures"),
        ({"recipe": "dust3r", "tiny": True}, "--tiny"),
        ({"recipe": "maxi"}, "maxi"),
        ({"recipe": "mini", "device": "tpu"}, "tpu"),
        ({"recipe": "mini", "photos": tmp_path}, "nothing to train on"),
    ):
        with pytest.raises(UserError, match=message):
            train_command(**({"minutes": 0.1, "out": tmp_path / "out"} | options))
