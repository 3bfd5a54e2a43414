"""Training checkpoints: weights in small safetensors shards plus a JSON state, replaced as a whole.

A run by the clock keeps half-precision weights only: its checkpoints stay small, and are gone on from with a fresh
optimiser. A run by steps keeps float32 weights, and beside them, in ``training.pt``, all that makes a resumed run the
same as one that was not cut.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unposed.errors import UserError
from unposed.io.atomic import atomic_directory, restore_directory

SHARD_BYTES = 15 * 2**20
"""Largest size of a shard, unless a single tensor is larger."""
LAST, BEST = "checkpoint", "best"
"""Folders of a run: where it stands, and the weights with the lowest test loss."""
_STATE = "state.json"
_TRAINING = "training.pt"


def save_checkpoint(
    run: Path,
    weights: dict[str, Tensor],
    state: dict[str, Any],
    training: dict[str, Any] | None = None,
    *,
    half: bool = True,
    folder: str = LAST,
) -> None:
    """Write ``run/checkpoint`` (or another ``folder`` of it); a kill leaves the former checkpoint or this one.

    ``half``: float16 shards, else the weights' own precision. ``training``: tensors and plain values for an exact
    resume.
    """
    with atomic_directory(run / folder, marker=_STATE) as place:
        for k, shard in enumerate(_shards(weights, half)):
            save_file(shard, place / f"weights-{k:03d}.safetensors")
        if training is not None:
            torch.save(training, place / _TRAINING)
        (place / _STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def load_checkpoint(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and state of a training run's last checkpoint; ``run`` may also be the checkpoint folder itself.

    Raises:
        UserError: there is no complete checkpoint.
    """
    folder = _folder(run)
    shards = sorted(folder.glob("weights-*.safetensors"))
    if not (folder / _STATE).exists() or not shards:
        raise UserError(f"{run} holds no training checkpoint: give the --out folder of an earlier run.")
    weights = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    return weights, json.loads((folder / _STATE).read_text(encoding="utf-8"))


def load_training(run: Path) -> dict[str, Any]:
    """What a run by steps keeps beside its weights: see ``save_checkpoint``.

    Raises:
        UserError: the run went by the clock, and has kept nothing.
    """
    file = _folder(run) / _TRAINING
    if not file.exists():
        raise UserError(f"{run} was trained by the clock, which keeps no optimiser: give --minutes, or start from it.")
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def has_checkpoint(run: Path) -> bool:
    """Whether a run has got as far as its first checkpoint."""
    return (_folder(run) / _STATE).exists()


def best_or_last(run: Path) -> Path:
    """The checkpoint of a run to use: the one with the lowest test loss where the run keeps it, else the last one."""
    restore_directory(run / BEST)
    return run / BEST if (run / BEST / _STATE).exists() else run


def _folder(run: Path) -> Path:
    folder = run if (run / _STATE).exists() else run / LAST
    restore_directory(folder)
    return folder


def clear_partial(run: Path) -> None:
    """Remove what a killed run left half-written."""
    for folder in (LAST, BEST):
        restore_directory(run / folder)
        for leftover in run.glob(f".{folder}-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _shards(weights: dict[str, Tensor], half: bool) -> list[dict[str, Tensor]]:
    """Copies on the CPU, packed in order into shards of at most ``SHARD_BYTES``."""
    shards: list[dict[str, Tensor]] = [{}]
    room = SHARD_BYTES - 2**16  # the header
    for name, tensor in weights.items():
        dtype = torch.float16 if half and tensor.is_floating_point() else tensor.dtype
        stored = tensor.detach().to("cpu", dtype).contiguous()
        size = stored.numel() * stored.element_size()
        if shards[-1] and size > room:
            shards.append({})
            room = SHARD_BYTES - 2**16
        shards[-1][name] = stored
        room -= size
    return shards
