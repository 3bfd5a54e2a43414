"""Files around DUSt3R's training: weights to start from, and the container in which weights are released."""

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unposed.errors import UserError
from unposed.io.atomic import atomic_write
from unposed.io.checkpoints import Rename, read_checkpoint, rename_tensors
from unposed.models.dust3r import KEYS, Dust3r, Dust3rConfig
from unposed.train.checkpoint import best_or_last, has_checkpoint, load_checkpoint

_HEADS = ("head1.", "head2.", "downstream_head", "prediction_head.")
"""What may be missing in a file to start from, or be of another kind."""


def start_from(network: Dust3r, start: str) -> None:
    """Load what ``start`` has of the network; heads of another kind stay as they are.

    ``start`` is a file of CroCo v2 (its decoder goes into both streams), a released or exported file of DUSt3R or
    MASt3R, a folder of a training run (its best weights), or the name of a model that ``load_model`` knows.

    Raises:
        UserError: no such thing, or another size of the network.
    """
    tensors = _tensors(start)
    if not any(name.startswith("decoder.blocks2.") for name in tensors):
        first = "decoder.blocks1."
        copies = {name.replace(first, "decoder.blocks2."): t for name, t in tensors.items() if name.startswith(first)}
        tensors |= copies
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in tensors and not name.startswith(_HEADS)]
    unknown = [name for name in tensors if name not in wanted and not name.startswith(_HEADS)]
    if missing or unknown:
        odd = f"lacks {missing[0]}" if missing else f"has {unknown[0]}"
        raise UserError(f"{start} {odd}: training starts from CroCo v2 (ViT-L, base decoder), DUSt3R or MASt3R.")
    for name, tensor in tensors.items():
        if name in wanted and tensor.shape != wanted[name].shape:
            raise UserError(f"{start} is of another size than this stage: {name} is {tuple(tensor.shape)}.")
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items() if name in wanted}, strict=False)


def _tensors(start: str) -> dict[str, Tensor]:
    """Weights under our names."""
    path = Path(start)
    if path.is_dir() and has_checkpoint(path):
        return load_checkpoint(best_or_last(path))[0]
    if path.exists():
        return rename_tensors(read_checkpoint(path).tensors, KEYS)
    from unposed.models.registry import load_model

    network = load_model(start, device="cpu", dtype="float32")
    if not isinstance(network, Dust3r):
        raise UserError(f"{start} is no network of the DUSt3R family: start from CroCo v2, DUSt3R or MASt3R.")
    return dict(network.state_dict())


def write_released(file: Path, weights: dict[str, Tensor], config: dict[str, Any], epoch: int = 0) -> None:
    """Write weights (our names) as DUSt3R's authors release theirs: ``model``, ``args`` with the network in text.

    Raises:
        UserError: the place cannot be written.
    """
    network = Dust3rConfig.from_keywords(config)
    content = {
        "model": released_names(weights, network),
        "args": Namespace(model=constructor_text(network)),
        "epoch": epoch,
    }
    with atomic_write(file) as temporary:
        torch.save(content, temporary)


def released_names(weights: dict[str, Tensor], config: Dust3rConfig) -> dict[str, Tensor]:
    """Weights under the names of the released files, with the few that are in those but in no use."""
    named = rename_tensors({name: tensor.float() for name, tensor in weights.items()}, _THEIR_NAMES)
    named["mask_token"] = torch.zeros(1, 1, config.dec_embed_dim)
    for k in (1, 2):
        scratch = f"downstream_head{k}.dpt.scratch."
        if f"{scratch}layer1_rn.weight" not in named:
            continue
        for level in range(4):  # stored under two names
            named[f"{scratch}layer_rn.{level}.weight"] = named[f"{scratch}layer{level + 1}_rn.weight"]
        for part in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"):
            like = named[f"{scratch}refinenet4.resConfUnit2.{part}"]
            named[f"{scratch}refinenet4.resConfUnit1.{part}"] = torch.zeros_like(like)
    return named


def constructor_text(config: Dust3rConfig) -> str:
    """The network as the constructor expression that released files hold."""
    keywords = asdict(config) | {"patch_embed_cls": "PatchEmbedDust3R", "landscape_only": False}
    return f"AsymmetricCroCo3DStereo({', '.join(f'{name}={value!r}' for name, value in keywords.items())})"


def _dpt_rows() -> list[Rename]:
    ours, theirs = r"head([12])\.", r"downstream_head\1.dpt."
    rows = []
    for k in range(4):
        fusion = rf"{theirs}scratch.refinenet{k + 1}."
        rows += [
            Rename(rf"{ours}project\.{k}\.(.+)", rf"{theirs}act_postprocess.{k}.0.\2"),
            Rename(rf"{ours}resample\.{k}\.(.+)", rf"{theirs}act_postprocess.{k}.1.\2"),
            Rename(rf"{ours}reduce\.{k}\.weight", rf"{theirs}scratch.layer{k + 1}_rn.weight"),
            Rename(rf"{ours}fusions\.{k}\.skip\.(.+)", rf"{fusion}resConfUnit1.\2"),
            Rename(rf"{ours}fusions\.{k}\.merge\.(.+)", rf"{fusion}resConfUnit2.\2"),
            Rename(rf"{ours}fusions\.{k}\.out\.(.+)", rf"{fusion}out_conv.\2"),
        ]
    return rows + [Rename(rf"{ours}conv{k + 1}\.(.+)", rf"{theirs}head.{2 * k}.\2") for k in range(3)]


_THEIR_NAMES = (
    Rename(r"encoder\.blocks\.(.+)", r"enc_blocks.\1"),
    Rename(r"encoder\.norm\.(.+)", r"enc_norm.\1"),
    Rename(r"decoder\.embed\.(.+)", r"decoder_embed.\1"),
    Rename(r"decoder\.blocks1\.(.+)", r"dec_blocks.\1"),
    Rename(r"decoder\.blocks2\.(.+)", r"dec_blocks2.\1"),
    Rename(r"decoder\.norm\.(.+)", r"dec_norm.\1"),
    Rename(r"head([12])\.proj\.(.+)", r"downstream_head\1.proj.\2"),
    *_dpt_rows(),
)
"""Our names to those of the released files."""
