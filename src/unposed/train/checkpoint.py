"""Training checkpoints: half-precision weights in small safetensors shards plus a JSON state, replaced as a whole."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unposed.errors import UserError
from unposed.io.atomic import atomic_directory, atomic_write, restore_directory

SHARD_BYTES = 15 * 2**20
"""Largest size of a shard, unless a single tensor is larger."""
_STATE = "state.json"
_CHECKPOINT = "checkpoint"


def save_checkpoint(run: Path, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write ``run/checkpoint``: float16 shards and ``state.json``; a kill leaves the former checkpoint or this one."""
    with atomic_directory(run / _CHECKPOINT, marker=_STATE) as folder:
        for k, shard in enumerate(_shards(weights)):
            save_file(shard, folder / f"weights-{k:03d}.safetensors")
        (folder / _STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def load_checkpoint(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights (float16) and state of a training run's last checkpoint.

    Raises:
        UserError: there is no complete checkpoint.
    """
    folder = run if (run / _STATE).exists() else run / _CHECKPOINT
    restore_directory(folder)
    shards = sorted(folder.glob("weights-*.safetensors"))
    if not (folder / _STATE).exists() or not shards:
        raise UserError(f"{run} holds no training checkpoint: give the --out folder of an earlier run.")
    weights = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    return weights, json.loads((folder / _STATE).read_text(encoding="utf-8"))


def export_checkpoint(run: Path, file: Path) -> dict[str, str]:
    """Merge the shards of a run into one float16 safetensors file that ``load_model`` reads; returns its metadata.

    The metadata are ``system``, ``config`` (JSON) and ``card`` as the recipe gave them. Raises ``UserError`` where
    there is no checkpoint or no room.
    """
    weights, state = load_checkpoint(run)
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in state["metadata"].items()}
    with atomic_write(file) as temporary:
        save_file(weights, temporary, metadata=metadata)
    return metadata


def clear_partial(run: Path) -> None:
    """Remove what a killed run left half-written."""
    restore_directory(run / _CHECKPOINT)
    for leftover in run.glob(f".{_CHECKPOINT}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _shards(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Half-precision copies on the CPU, packed in order into shards of at most ``SHARD_BYTES``."""
    shards: list[dict[str, Tensor]] = [{}]
    room = SHARD_BYTES - 2**16  # the header
    for name, tensor in weights.items():
        half = tensor.detach().to("cpu", torch.float16 if tensor.is_floating_point() else tensor.dtype).contiguous()
        size = half.numel() * half.element_size()
        if shards[-1] and size > room:
            shards.append({})
            room = SHARD_BYTES - 2**16
        shards[-1][name] = half
        room -= size
    return shards
