"""Checkpoints in, without executing anything that is in them.

A checkpoint is a safetensors file (with its configuration in the metadata or in a ``config.json`` beside it) or a
PyTorch file, read by ``torch.load(weights_only=True)`` with one more harmless type than usual: ``argparse.Namespace``,
which holds the training arguments in the family's files. Model descriptions in text are parsed as literals, never
evaluated.
"""

import argparse
import ast
import json
import math
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from unposed.errors import UserError

_UNFINISHED_SUFFIXES = {".incomplete", ".part", ".partial", ".crdownload", ".download", ".tmp"}
_MAX_TEXT = 20_000
_CONSTANTS = {"inf": math.inf, "nan": math.nan}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds: tensors by name, and all the rest as plain data."""

    path: Path
    tensors: dict[str, Tensor]
    extra: dict[str, Any]
    """Everything beside the tensors: ``args`` as a dict, ``croco_kwargs``, ``config`` from JSON, ``system`` ..."""


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a ``.safetensors`` file, a PyTorch file, or a folder with ``model.safetensors`` and ``config.json``.

    Tensors stay on the CPU, memory-mapped where the container allows it.

    Raises:
        UserError: there is no such file; it is cut off, damaged, no checkpoint, or holds what we refuse to load.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.suffix in _UNFINISHED_SUFFIXES:
        raise UserError(f"{path} is a download that has not finished; wait for it or download it again.")
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}; check the path.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; download it again.")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pytorch(path)


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is damaged or not completely downloaded ({_first_line(error)}); get it again."
        ) from error
    extra: dict[str, Any] = dict(metadata)
    beside = path.with_name("config.json")
    if "config" in metadata:
        extra["config"] = _json_object(metadata["config"], path)
    elif beside.is_file():
        extra["config"] = read_config(beside)
    return Checkpoint(path, tensors, extra)


def read_config(path: str | Path) -> dict[str, Any]:
    """A ``config.json`` (infinities as the literal ``Infinity``).

    Raises:
        UserError: unreadable, or no JSON object.
    """
    try:
        return _json_object(Path(path).read_text(encoding="utf-8"), Path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({_first_line(error)}); get it again.") from error


def _json_object(text: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"The configuration in {path} is no valid JSON ({_first_line(error)}); get it again."
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"The configuration in {path} is no JSON object; get it again.")
    return value


def _read_pytorch(path: Path) -> Checkpoint:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a hostile file can make the unpickler raise anything
        refused = re.search(r"(?:GLOBAL|global:?|class) ([\w.]+\.\w+)", str(error))
        if refused:
            raise UserError(f"{path} wants to run {refused[1]}, which no checkpoint needs; do not trust it.") from error
        raise UserError(f"{path} is no checkpoint, damaged, or not completely downloaded; get it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no state dict; give a checkpoint of a supported model.")
    nested = content.get("model", content.get("state_dict"))
    state = nested if isinstance(nested, dict) else content
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no weights; give a checkpoint of a supported model.")
    extra = {} if state is content else {str(k): _plain(v) for k, v in content.items() if v is not nested}
    return Checkpoint(path, tensors, extra)


def _plain(value: Any) -> Any:
    return dict(vars(value)) if isinstance(value, argparse.Namespace) else value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def parse_constructor(text: str) -> tuple[str, dict[str, Any]]:
    """Class name and keywords of a constructor expression in text, ``Name(a=1, b=('exp', -inf, inf))``.

    Values may be literals, containers of literals, ``inf``, ``nan`` and ``float('inf')``; nothing is evaluated.

    Raises:
        UserError: it is anything else.
    """
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise UserError("The model description in this checkpoint is no constructor text; give a released file.")
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("not one call with keywords")
        if any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("a ** argument")
        return call.func.id, {str(keyword.arg): _literal(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(
            f"The model description {text[:60]!r} in this checkpoint is not a plain constructor "
            f"({_first_line(error)}); do not trust it."
        ) from error


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_literal(operand)
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str() as number)], keywords=[]):
            return float(number)
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {ast.literal_eval(key): _literal(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.Constant(value=value):
            return value
        case _:
            raise ValueError(f"{ast.unparse(node)[:40]} is no literal")


@dataclass(frozen=True)
class Rename:
    """One row of a key table: a pattern that a file's name must match in full, and our name for it.

    ``target`` may refer to groups (``\\1``); None drops the tensor, which is how dead weights are named.
    """

    pattern: str
    target: str | None


def rename_tensors(tensors: Mapping[str, Tensor], table: Iterable[Rename]) -> dict[str, Tensor]:
    """Tensors under our names. The first row that matches decides; of two names for one tensor the earlier row wins.

    Names that no row matches stay as they are.
    """
    rows = [(re.compile(row.pattern), row.target) for row in table]
    found: dict[str, tuple[int, Tensor]] = {}
    for name, tensor in tensors.items():
        target, rank = _our_name(name, rows)
        if target is not None and (target not in found or rank < found[target][0]):
            found[target] = (rank, tensor)
    return {name: tensor for name, (_, tensor) in found.items()}


def _our_name(name: str, rows: list[tuple[re.Pattern[str], str | None]]) -> tuple[str | None, int]:
    for rank, (pattern, target) in enumerate(rows):
        match = pattern.fullmatch(name)
        if match:
            return (None if target is None else match.expand(target)), rank
    return name, len(rows)


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Put ``tensors`` into ``network`` (which may live on the meta device) without copying; nothing may be left over.

    Raises:
        UserError: a tensor is missing, not expected, of another shape, or not of floating point; it is named.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise UserError(f"{source} lacks {_some(missing)}; it is no checkpoint of this model.")
    unexpected = [name for name in tensors if name not in wanted]
    if unexpected:
        raise UserError(f"{source} holds {_some(unexpected)}, which this model does not have; is it another model's?")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
            raise UserError(f"{name} in {source} has shape {shapes}; the file does not fit its configuration.")
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise UserError(f"{name} in {source} is {tensor.dtype}, {tensor.layout}; weights are plain float tensors.")
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
