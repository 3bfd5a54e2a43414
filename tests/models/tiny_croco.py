"""A CroCo-Stereo or CroCo-Flow checkpoint of the released form with a tiny network of random weights."""

import re
from argparse import Namespace
from pathlib import Path

import torch

from unposed.models.croco import CrocoConfig, CrocoDense

SIZES = {"enc_embed_dim": 16, "enc_depth": 4, "enc_num_heads": 2, "dec_embed_dim": 16, "dec_num_heads": 2}


def write_tiny_croco(path: Path, task: str, criterion: str) -> Path:
    torch.manual_seed(0)
    keywords = {"img_size": (32, 64), "pos_embed": "RoPE100", "dec_depth": 8, **SIZES}
    network = CrocoDense(CrocoConfig.from_keywords(keywords), {"stereo": 1, "flow": 2}[task] + 1)
    if task == "stereo":
        network.head.conv3.bias.data[0] += 1  # most disparities are positive
    tensors = {_released_name(name): tensor for name, tensor in network.state_dict().items()}
    arguments = Namespace(
        task=task,
        crop=[32, 64],
        criterion=f"{criterion}()",
        tile_conf_mode="conf_expsigmoid_15_3",
        croco_args=keywords,
    )
    torch.save({"model": tensors, "args": arguments}, path)
    return path


def _released_name(name: str) -> str:
    """Of our names the released ones: the way back of ``unposed.models.croco.KEYS``."""
    for ours, theirs in (
        (r"backbone\.encoder\.blocks\.", "enc_blocks."),
        (r"backbone\.encoder\.norm\.", "enc_norm."),
        (r"backbone\.", ""),
    ):
        name = re.sub(f"^{ours}", theirs, name)
    return name
