"""MoGe-1 and MoGe-2: the networks, and the token counts of resolution levels."""

import math
from unittest.mock import patch

import numpy as np
import torch

from tests.models import tiny_moge
from tests.parity.harness import Case, runs
from unposed.io.checkpoints import read_checkpoint
from unposed.models.moge import Moge
from unposed.models.moge_config import parse_config
from unposed.models.moge_networks import MogeV1, MogeV2, RawMaps
from unposed.nets import dinov2


def _load(case: Case) -> Moge:
    given = case.config["backbone"]
    backbone = dinov2.DinoV2Config(
        given["embed_dim"],
        given["depth"],
        given["num_heads"],
        image_size=given["img_size"],
        registers=given["num_register_tokens"],
        antialias=given["interpolate_antialias"],
        offset=given["interpolate_offset"],
    )
    encoder = case.config["model"]["encoder"]
    name = encoder if isinstance(encoder, str) else encoder["backbone"]
    path = case.scratch / "model.pt"
    torch.save({"model_config": case.config["model"], "model": case.state_dict()}, path)
    with patch.dict(dinov2.VARIANTS, {name: backbone}):
        model = Moge.from_checkpoint(read_checkpoint(path), "golden")
    if isinstance(model.network, MogeV2):
        model.network.by_size = case.config["onnx_compatible_mode"]
    assert (case.config["version"] == "v2") == isinstance(model.network, MogeV2)
    return model.eval()


@runs("moge", "v1_*")
@torch.no_grad()
def v1(case: Case) -> None:
    network = _load(case).network
    for name, call in case.params.items():
        images = case.tensor(name)
        maps = network(images, call["num_tokens"])
        features, _, _ = network.encode(images, call["num_tokens"])
        case.check(f"{name}.points", maps.points)
        case.check(f"{name}.mask", maps.mask)
        case.check(f"{name}.tokens_last", features.patches[-1])
        case.check(f"{name}.cls_last", features.cls)


@runs("moge", "v2_*")
@torch.no_grad()
def v2(case: Case) -> None:
    network = _load(case).network
    for name, call in case.params.items():
        images = case.tensor(name)
        maps = network(images, call["num_tokens"])
        features, cls = network.encoder(images, network.grid(images, call["num_tokens"]), network.by_size)
        found = {"points": maps.points, "mask": maps.mask, "normal": maps.normals, "metric_scale": maps.metric_scale}
        for output, value in (found | {"encoder": features, "cls": cls}).items():
            if value is not None:
                case.check(f"{name}.{output}", value)


@runs("moge", "infer_tokens*")
@torch.no_grad()
def tokens(case: Case) -> None:
    model = _load(case)
    images = case.tensor("image")[None]
    for name, call in case.params.items():
        count = model.tokens(call["resolution_level"])
        assert count == call["num_tokens"]
        maps = model.network(images, count)
        case.check(f"{name}.raw_points", maps.points[0])
        case.check(f"{name}.metric_scale", maps.metric_scale)
        geometry = model.solve(maps, field_of_view=call["fov_x"])
        case.check(f"{name}.intrinsics", geometry.normalised_intrinsics[0])
        case.check(f"{name}.mask", np.asarray(geometry.mask[0]))


@runs("moge", "infer_post*")
def post_processing(case: Case) -> None:
    second = case.config["version"] == "v2"
    model = tiny_moge.moge(tiny_moge.v2_config() if second else tiny_moge.v1_config())
    assert model.network.config.mask_threshold == case.config["mask_threshold"]
    raw = RawMaps(
        case.tensor("forward.points"),
        case.tensor("forward.mask"),
        case.tensor("forward.normal") if "forward.normal" in case.inputs else None,
        case.tensor("forward.metric_scale") if "forward.metric_scale" in case.inputs else None,
    )
    for name, call in case.params.items():
        solved = model.solve(raw, field_of_view=call["fov_x"], project=call["force_projection"])
        kept = solved.mask if call["apply_mask"] else torch.ones_like(solved.mask)
        found = {
            "points": torch.where(kept[..., None], solved.points, torch.inf),
            "depth": torch.where(kept, solved.depth, torch.inf),
            "intrinsics": solved.normalised_intrinsics,
            "mask": solved.mask,
        }
        if solved.normals is not None:
            found["normal"] = torch.where(kept[..., None], solved.normals, 0.0)
        for output, value in found.items():
            if f"{name}.{output}" in case.outputs:
                case.check(f"{name}.{output}", value)


@runs("moge", "released")
def released(case: Case) -> None:
    """The networks of the released files, from their own configurations, have the released tensors and no others."""
    for name, row in case.params.items():
        manifest = row["manifest"]
        with torch.device("meta"):
            if name.startswith("_backbone"):
                network = dinov2.DinoV2(dinov2.VARIANTS["dinov2_vitl14"])
            else:
                config = parse_config(row["config"])
                network = MogeV2(config) if row["version"] == "v2" else MogeV1(config)
        shapes = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
        assert shapes == {key: shape for key, shape in manifest.items() if not key.endswith("mask_token")}
        if "num_parameters" in row:
            unused = sum(math.prod(shape) for key, shape in manifest.items() if key.endswith("mask_token"))
            assert sum(p.numel() for p in network.parameters()) + unused == row["num_parameters"]
