"""MoGe networks small enough for tests, and the files they come in."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from unposed.models.moge import Moge
from unposed.models.moge_config import parse_config
from unposed.models.moge_networks import MogeV1, MogeV2
from unposed.nets import dinov2

TINY = {"dinov2_tiny": dinov2.DinoV2Config(16, 2, 2, image_size=42)}


def v1_config() -> dict[str, Any]:
    """As an early released file has it, with its legacy keys."""
    return {
        "encoder": "dinov2_tiny",
        "remap_output": "exp",
        "output_mask": True,
        "split_head": True,
        "intermediate_layers": 2,
        "dim_proj": 32,
        "dim_upsample": [32, 32, 32],
        "dim_times_res_block_hidden": 1,
        "num_res_blocks": 1,
        "trained_area_range": [2500, 5000],
        "last_conv_channels": 8,
        "last_conv_size": 1,
    }


def v2_config(normals: bool = True, metric: bool = True) -> dict[str, Any]:
    stack = {
        "dim_res_blocks": [16, 8, 8, 8, 8],
        "num_res_blocks": [0, 1, 1, 1, 0],
        "res_block_in_norm": "none",
        "res_block_hidden_norm": "none",
        "resamplers": ["conv_transpose", "conv_transpose", "conv_transpose", "bilinear"],
    }
    heads = {"points_head": 3, "mask_head": 1} | ({"normal_head": 3} if normals else {})
    return {
        "encoder": {"backbone": "dinov2_tiny", "intermediate_layers": [0, 1], "dim_out": 16},
        "neck": {"dim_in": [18, 2, 2, 2, 2], "dim_out": None, **stack},
        **{name: {"dim_in": [16, 8, 8, 8, 8], "dim_out": [None] * 4 + [out], **stack} for name, out in heads.items()},
        **({"scale_head": {"dims": [16, 16, 1]}} if metric else {}),
        "remap_output": "exp",
        "num_tokens_range": [12, 40],
    }


def network(config: dict[str, Any], seed: int = 0) -> MogeV1 | MogeV2:
    torch.manual_seed(seed)
    with patch.dict(dinov2.VARIANTS, TINY):
        parsed = parse_config(config)
    return MogeV2(parsed) if isinstance(config["encoder"], dict) else MogeV1(parsed)


def moge(config: dict[str, Any], seed: int = 0) -> Moge:
    return Moge(network(config, seed).eval().requires_grad_(False), "tiny-moge")


def write(path: Path, config: dict[str, Any]) -> Path:
    """A file as released, with the mask token that no inference uses."""
    built = network(config)
    tensors = dict(built.state_dict())
    prefix = "encoder.backbone." if isinstance(built, MogeV2) else "backbone."
    tensors[f"{prefix}mask_token"] = torch.zeros(1, 16)
    torch.save({"model_config": config, "model": tensors}, path)
    return path
