import pytest
import torch

from tests.models import tiny, tiny_moge
from unposed.errors import UserError
from unposed.geometry.cameras import pixel_grid, pointmap_from_depth, project
from unposed.geometry.view_plane import view_plane
from unposed.io.checkpoints import read_checkpoint
from unposed.models import registry
from unposed.models.base import MonocularModel, PairModel
from unposed.models.moge import Moge
from unposed.models.moge_config import MogeV1Config, MogeV2Config, parse_config
from unposed.models.moge_networks import MogeV1, MogeV2, RawMaps, remap
from unposed.nets import dinov2

CONFIGS = {"v1": tiny_moge.v1_config(), "v2": tiny_moge.v2_config(), "v2 bare": tiny_moge.v2_config(False, False)}


@pytest.fixture(params=CONFIGS)
def model(request):
    return tiny_moge.moge(CONFIGS[request.param])


@pytest.mark.parametrize(("height", "width"), [(40, 60), (61, 37), (50, 50), (30, 120)])
def test_every_aspect_ratio_gives_maps_of_its_size_and_a_camera(model, height, width):
    found = model.infer([tiny.view("a", height, width)], tokens=20)[0]
    assert found.points.shape == (height, width, 3)
    assert found.depth.shape == found.mask.shape == (height, width)
    assert found.mask.dtype == torch.bool
    k = found.intrinsics
    assert torch.allclose(k[0, 0], k[1, 1], rtol=1e-4)
    assert torch.allclose(k[:2, 2], torch.tensor([(width - 1) / 2, (height - 1) / 2]), atol=1e-3)
    assert torch.allclose(found.points, pointmap_from_depth(found.depth, k), atol=1e-3, rtol=1e-3)
    assert torch.equal(found.points[..., 2], found.depth)
    if found.normals is not None:
        assert torch.allclose(found.normals.norm(dim=-1), torch.ones(height, width), atol=1e-5)


def test_models_keep_the_protocol(model):
    assert isinstance(model, MonocularModel)
    assert not isinstance(model, PairModel)
    assert model.metric == (model.infer([tiny.view("a", 40, 60)], tokens=12)[0].metric)


def test_known_field_of_view_and_known_intrinsics_hold(model):
    view = tiny.view("a", 40, 60)
    found = model.infer([view], tokens=20, field_of_view=50.0)[0]
    focal = 30 / torch.tan(torch.deg2rad(torch.tensor(25.0)))
    assert torch.allclose(found.intrinsics[0, 0], focal, rtol=1e-5)
    k = torch.tensor([[70.0, 0, 20], [0, 66.0, 25], [0, 0, 1]])
    known, free = model.infer([view, view], tokens=20, intrinsics=[k, None])
    assert torch.allclose(known.intrinsics, k, atol=1e-4)
    pixels = pixel_grid(40, 60)[known.mask]
    assert torch.allclose(project(known.points[known.mask], k), pixels, atol=1e-2)
    assert not torch.allclose(free.intrinsics, k, atol=1)


def test_views_of_several_sizes_and_cameras_come_back_in_order(model):
    views = [tiny.view("a", 40, 60), tiny.view("b", 60, 40), tiny.view("c", 40, 60), tiny.view("d", 40, 60)]
    known = [None, None, torch.tensor([[50.0, 0, 29.5], [0, 50.0, 19.5], [0, 0, 1]]), None]
    together = model.infer(views, tokens=20, intrinsics=known)
    for view, k, found in zip(views, known, together, strict=True):
        alone = model.infer([view], tokens=20, intrinsics=[k])[0]
        assert torch.allclose(found.depth, alone.depth, rtol=1e-3, atol=1e-4)
        assert torch.allclose(found.intrinsics, alone.intrinsics, rtol=1e-3)


def test_resolution_levels_span_the_trained_tokens_and_go_beyond():
    v1, v2 = tiny_moge.moge(CONFIGS["v1"]), tiny_moge.moge(CONFIGS["v2"])
    assert [v1.tokens(level) for level in (0, 9)] == [2500 // 196, 5000 // 196]
    assert [v2.tokens(level) for level in (0, 9, 18)] == [12, 40, 68]
    assert v2.network.grid(torch.zeros(1, 3, 90, 120), v2.tokens(9)) == (5, 7)


@pytest.mark.parametrize(
    "options", [{"field_of_view": 0}, {"field_of_view": 180}, {"resolution_level": -1}, {"tokens": 0}]
)
def test_impossible_wishes_are_refused(options):
    with pytest.raises(UserError):
        tiny_moge.moge(CONFIGS["v2"]).infer([tiny.view("a", 40, 60)], **options)


def test_perfect_raw_maps_give_the_true_camera_and_metres():
    model = tiny_moge.moge(CONFIGS["v2"])
    height, width, focal = 48, 64, 1.1
    depth = 2 + torch.rand(1, 6, 8, generator=torch.Generator().manual_seed(0))
    depth = torch.nn.functional.interpolate(depth[None], (height, width), mode="bicubic")[0]
    truth = torch.cat(
        [view_plane(height, width, width / height)[None] / focal * depth[..., None], depth[..., None]], -1
    )
    raw = truth / 3.0
    raw[..., 2] -= 0.3
    behind = torch.ones(1, height, width)
    behind[:, :5] = 0.2
    solved = model.solve(RawMaps(raw, behind, None, torch.tensor([3.0])))
    assert torch.allclose(solved.points, truth, rtol=1e-3, atol=1e-3)
    assert torch.equal(solved.mask, behind > 0.5)
    assert torch.allclose(2 * solved.normalised_intrinsics[0, 0, 0] * 0.8, torch.tensor(focal), rtol=1e-3)


def test_points_behind_the_camera_are_masked_in_the_second_version_only():
    raw = RawMaps(torch.randn(1, 20, 30, 3, generator=torch.Generator().manual_seed(1)), torch.ones(1, 20, 30))
    first = tiny_moge.moge(CONFIGS["v1"]).solve(raw, field_of_view=60.0)
    second = tiny_moge.moge(CONFIGS["v2"]).solve(raw, field_of_view=60.0)
    assert (first.depth < 0).any()
    assert first.mask.all()
    assert torch.equal(second.mask, second.depth > 0)


def test_normals_are_only_computed_where_they_are_wanted():
    model = tiny_moge.moge(CONFIGS["v2"])
    view = tiny.view("a", 40, 60)
    with_normals, without = (model.infer([view], tokens=20, normals=wanted)[0] for wanted in (True, False))
    assert without.normals is None
    assert torch.equal(without.depth, with_normals.depth)
    images = torch.rand(1, 3, 40, 60)
    assert model.network(images, 20, normals=False).normals is None


def test_output_maps():
    raw = torch.tensor([0.5, -2.0, 1.0])
    z = torch.tensor(1.0).exp()
    assert torch.allclose(remap(raw, "exp"), torch.tensor([0.5 * z, -2 * z, z]))
    assert torch.allclose(remap(raw, "sinh_exp"), torch.cat([raw[:2].sinh(), raw[2:].exp()]))
    assert torch.allclose(remap(raw, "sinh"), raw.sinh())
    assert torch.equal(remap(raw, "linear"), raw)


@pytest.mark.parametrize("name", CONFIGS)
def test_released_files_load_by_path(name, tmp_path, monkeypatch):
    path = tiny_moge.write(tmp_path / "mine.pt", CONFIGS[name])
    monkeypatch.setattr(dinov2, "VARIANTS", dinov2.VARIANTS | tiny_moge.TINY)
    loaded = registry.load_model(path, device="cpu", dtype="float32")
    assert isinstance(loaded, Moge)
    assert loaded.name == "mine"
    assert isinstance(loaded.network, MogeV1 if name == "v1" else MogeV2)
    view = tiny.view("a", 40, 60)
    again = tiny_moge.moge(CONFIGS[name])
    depths = [model.infer([view], tokens=20, field_of_view=60)[0].depth for model in (loaded, again)]
    assert torch.allclose(*depths, rtol=1e-4, atol=1e-5)


def test_half_precision_of_the_transformer_changes_little(tmp_path, monkeypatch):
    path = tiny_moge.write(tmp_path / "mine.pt", CONFIGS["v2"])
    monkeypatch.setattr(dinov2, "VARIANTS", dinov2.VARIANTS | tiny_moge.TINY)
    view = tiny.view("a", 40, 60)
    full, half = (
        registry.load_model(path, device="cpu", dtype=dtype).infer([view], tokens=20, field_of_view=60)[0]
        for dtype in ("float32", "bfloat16")
    )
    assert torch.allclose(full.depth, half.depth, rtol=0.05)


def test_damaged_files_end_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(dinov2, "VARIANTS", dinov2.VARIANTS | tiny_moge.TINY)
    path = tiny_moge.write(tmp_path / "mine.pt", CONFIGS["v2"])
    content = torch.load(path, weights_only=True)
    for change in (
        lambda c: c["model"].pop("neck.input_blocks.0.weight"),
        lambda c: c["model"].update(extra=torch.zeros(1)),
        lambda c: c.pop("model_config"),
    ):
        damaged = {"model_config": dict(content["model_config"]), "model": dict(content["model"])}
        change(damaged)
        torch.save(damaged, tmp_path / "damaged.pt")
        with pytest.raises(UserError):
            Moge.from_checkpoint(read_checkpoint(tmp_path / "damaged.pt"))


def _changed(**changes):
    return tiny_moge.v2_config() | changes


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        {"encoder": "resnet50"},
        {"encoder": "dinov2_vits14", "dim_upsample": [1, 2]},
        {"encoder": "dinov2_vits14", "res_block_norm": "batch"},
        {"encoder": "dinov2_vits14", "num_tokens_range": [10, 5]},
        {"encoder": "dinov2_vits14", "dim_proj": 10**9},
        {"encoder": "dinov2_vits14", "intermediate_layers": 13},
        _changed(refiner={"steps": 4}),
        _changed(encoder={"backbone": "dinov2_vits14", "intermediate_layers": [12], "dim_out": 16}),
        _changed(neck={"dim_in": [1]}),
        _changed(neck="none"),
        _changed(points_head=None),
        _changed(remap_output="cube"),
    ],
)
def test_configurations_that_no_release_has_are_refused(config, monkeypatch):
    monkeypatch.setattr(dinov2, "VARIANTS", dinov2.VARIANTS | tiny_moge.TINY)
    with pytest.raises(UserError):
        parse_config(config)


def test_the_version_is_read_from_the_configuration(monkeypatch):
    monkeypatch.setattr(dinov2, "VARIANTS", dinov2.VARIANTS | tiny_moge.TINY)
    assert isinstance(parse_config(CONFIGS["v1"]), MogeV1Config)
    assert isinstance(parse_config(CONFIGS["v2"]), MogeV2Config)


def test_released_models_are_registered():
    rows = {row.name: row for row in registry.MODELS if row.system == "moge"}
    assert set(rows) == {"moge-vitl", "moge-2-vitl", "moge-2-vitl-normal", "moge-2-vitb-normal", "moge-2-vits-normal"}
    for row in rows.values():
        assert row.repository == f"Ruicheng/{row.name}"
        assert row.downloads == ("model.pt",)
