from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from unposed.geometry.transforms import invert_rigid
from unposed.nets.convnet import STRIDE, ConvFeatures, sample_map
from unposed.synth import RenderedViews, render_scenes
from unposed.synth.textures import procedural_tiles
from unposed.train import composed_recipe
from unposed.train.composed_recipe import (
    ComposedConfig,
    ComposedRecipe,
    correspondences,
    depth_losses,
    matching_losses,
    training_points,
)
from unposed.train.warps import DensePairs

TINY = ComposedConfig(side=64, warped=2, rendered=2, points=32, scenes=2, views=2, pool=1, renew=2, validation=2)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> ComposedRecipe:
    folder: Path = tmp_path_factory.mktemp("textures")
    for k, tile in enumerate(procedural_tiles(24, seed=9)):
        Image.fromarray(tile).save(folder / f"photo_{k}.jpg")
        Image.fromarray(tile).save(folder / f"tile_{k}.jpg")
    return ComposedRecipe(folder, TINY)


def _rendered_pairs() -> DensePairs:
    views = render_scenes(3, 2, 2, 96, 96)
    b_from_a = invert_rigid(views.world_from_camera[:, 1]) @ views.world_from_camera[:, 0]
    flow, valid = correspondences(
        views.depth[:, 0], views.depth[:, 1], views.intrinsics[:, 0], views.intrinsics[:, 1], b_from_a
    )
    return DensePairs(views.images[:, 0], views.images[:, 1], flow, valid)


def test_correspondences_show_the_same_surface():
    pairs = _rendered_pairs()
    assert pairs.valid.float().mean() > 0.05
    back = F.grid_sample(pairs.images_b, (2 * pairs.flow + 1) / 96 - 1, align_corners=False)
    error = (back - pairs.images_a).abs().mean(1)[pairs.valid].mean()
    unaligned = (pairs.images_b - pairs.images_a).abs().mean(1)[pairs.valid].mean()
    assert error < 0.4 * unaligned


def test_hidden_and_unknown_pixels_are_not_valid():
    depth = torch.full((1, 8, 8), 2.0)
    nearer, sky = depth.clone(), depth.clone()
    nearer[:, :4] = 1.0
    sky[:, :, :4] = 0.0
    intrinsics, same = torch.tensor([[[8.0, 0, 3.5], [0, 8.0, 3.5], [0, 0, 1]]]), torch.eye(4)[None]
    _, hidden = correspondences(depth, nearer, intrinsics, intrinsics, same)
    _, unknown = correspondences(sky, depth, intrinsics, intrinsics, same)
    assert not hidden[:, :4].any()
    assert hidden[:, 4:].all()
    assert not unknown[:, :, :4].any()
    assert unknown[:, :, 4:].all()


def test_points_follow_the_flow():
    pairs = _rendered_pairs()
    points = training_points(pairs, 64, torch.Generator().manual_seed(0))
    truth = F.grid_sample(
        pairs.flow.permute(0, 3, 1, 2), (2 * points["points_a"][:, None] + 1) / 96 - 1, "nearest", align_corners=False
    )[:, :, 0].transpose(1, 2)
    error = (truth - points["points_b"]).norm(dim=-1)[points["weight"] > 0]
    assert error.median() < 3  # both ends are jittered
    assert points["weight"].mean() > 0.5


def _features(descriptors: torch.Tensor, **maps: torch.Tensor) -> ConvFeatures:
    zeros = torch.zeros(len(descriptors), *descriptors.shape[-2:])
    return ConvFeatures(descriptors, **{"reliability": zeros, "log_depth": zeros, "log_scale": zeros} | maps)


def test_matching_loss_wants_equal_descriptors_and_reliable_ones():
    generator = torch.Generator().manual_seed(0)
    side, cells = 64, 64 // STRIDE
    maps = torch.randn(1, 48, cells, cells, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(2, cells - 2, 2), torch.arange(2, cells - 2, 2), indexing="ij")
    points = (torch.stack([columns, rows], -1).reshape(1, -1, 2) * STRIDE + 1.5).float()
    batch = {"points_a": points, "points_b": points, "others_a": points + 8, "others_b": points + 8}
    batch["weight"] = torch.ones(points.shape[:2])
    sure = torch.full((2, cells, cells), 6.0)
    good = matching_losses(_features(maps.repeat(2, 1, 1, 1), reliability=sure), batch)
    other = torch.randn(maps.shape, generator=generator)
    bad = matching_losses(_features(torch.cat([maps, other]), reliability=sure), batch)
    assert good["matching"] < 0.1
    assert good["found"] == 1
    assert good["reliability"] < 0.01
    assert bad["matching"] > 3
    assert bad["reliability"] > 3
    nothing = matching_losses(_features(maps.repeat(2, 1, 1, 1)), batch | {"weight": torch.zeros(points.shape[:2])})
    assert all(torch.isfinite(value) for value in nothing.values())
    assert sample_map(maps, points).shape == (1, points.shape[1], 48)
    assert side == cells * STRIDE


def test_depth_loss_ignores_scale_and_unknown_depth():
    depth = torch.rand(2, 32, 32) * 4 + 1
    log_depth = depth[:, 1::STRIDE, 1::STRIDE].log() + torch.tensor([0.7, -2.0])[:, None, None]
    descriptors = torch.zeros(2, 4, 8, 8)
    right = depth_losses(_features(descriptors, log_depth=log_depth), depth)
    assert right["depth_error"] < 1e-5
    assert right["edges"] < 1e-5
    holes = depth.clone()
    holes[:, :16] = 0
    assert depth_losses(_features(descriptors, log_depth=log_depth), holes)["depth_error"] < 1e-5
    assert depth_losses(_features(descriptors), depth)["depth_error"] > 0.1
    empty = depth_losses(_features(descriptors), torch.zeros(2, 32, 32))
    assert all(torch.isfinite(value) for value in empty.values())


def test_batches_follow_from_the_step(recipe: ComposedRecipe):
    device = torch.device("cpu")
    one, again, other = recipe.batch(3, 0.5, device), recipe.batch(3, 0.5, device), recipe.batch(4, 0.5, device)
    assert all(len(value) == TINY.warped + TINY.rendered for value in one.values())
    for name in one:
        torch.testing.assert_close(one[name], again[name])
    assert not torch.equal(one["images_a"], other["images_a"])
    assert (one["depth_a"][: TINY.warped] == 0).all()
    assert (one["depth_a"][TINY.warped :] > 0).any()


def test_a_few_steps_lower_the_loss_and_validation_has_numbers(recipe: ComposedRecipe):
    device = torch.device("cpu")
    model = recipe.build()
    batch = recipe.batch(0, 0.0, device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(8):
        losses = recipe.loss(model, batch)
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        totals.append(float(losses["total"].detach()))
    assert totals[-1] < totals[0] - 0.5
    numbers = recipe.validate(model.eval(), device)
    assert {"photos_found", "scenes_found", "depth_error"} <= numbers.keys()
    assert all(torch.isfinite(torch.tensor(value)) for value in numbers.values())
    picture = recipe.preview(model, device)
    assert picture.shape[1:] == (4 * TINY.side, 3)
    assert recipe.metadata()["system"] == "composed"


def test_every_group_of_scenes_is_rendered_once(recipe: ComposedRecipe, monkeypatch: pytest.MonkeyPatch):
    rendered = []

    def counting(number: int, *sizes: int, **options: Any) -> RenderedViews:
        rendered.append(number)
        return render_scenes(number, *sizes, **options)

    monkeypatch.setattr(composed_recipe, "render_scenes", counting)
    config = replace(TINY, side=32, pool=3, renew=1, scenes=1)
    other = ComposedRecipe(recipe.folder, config)
    for step in range(6):
        other.batch(step, 0.0, torch.device("cpu"))
    assert len(rendered) == len(set(rendered))
    assert len(other.scenes.groups) <= 3
