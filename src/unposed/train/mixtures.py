"""The data of a recipe's stages: which sets, how many pairs of each, at which resolutions; written in one TOML file."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from unposed.errors import UserError
from unposed.train.datasets import open_dataset
from unposed.train.sampling import MixedSet, PairLoader, Resolution

DUST3R = "mixtures_dust3r.toml"
"""The file of DUSt3R's three stages, in this package."""


@dataclass(frozen=True)
class SetEntry:
    """A training set and how it takes part in a mixture."""

    kind: str
    """A key of ``unposed.train.datasets.DATASETS``."""
    pairs: int
    """Per epoch."""
    aug_crop: int = 0
    """See ``unposed.train.sampling.MixedSet.focal_jitter``."""
    folder: str = ""
    """Under the data root, or absolute."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the set's class, e.g. ``split`` or ``mask_bg``."""

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "SetEntry":
        """From a row of the file: ``set``, ``pairs``, ``aug_crop``, ``folder``; whatever else it has are options."""
        options = dict(row)
        kind, pairs, jitter = options.pop("set"), options.pop("pairs"), options.pop("aug_crop", 0)
        folder = options.pop("folder", f"{kind}_processed")
        if not isinstance(folder, str) or not isinstance(kind, str):
            raise ValueError("a set and its folder are names")
        return cls(kind, _whole("pairs", pairs, 1), _whole("aug_crop", jitter, 0), folder, options)


@dataclass(frozen=True)
class Mixture:
    """The data of one stage."""

    name: str
    resolutions: tuple[Resolution, ...]
    batch: int
    """Pairs a process and batch."""
    accumulate: int
    """Batches a step of the optimiser."""
    epochs: int
    warmup_epochs: int
    train: tuple[SetEntry, ...]
    test: tuple[SetEntry, ...]

    @classmethod
    def from_table(cls, name: str, table: dict[str, Any]) -> "Mixture":
        """From a table of the file."""
        unknown = set(table) - {"resolutions", "batch", "accumulate", "epochs", "warmup_epochs", "train", "test"}
        if unknown:
            raise ValueError(f"it does not know {', '.join(sorted(unknown))}")
        return cls(
            name,
            tuple(_resolution(pair) for pair in table["resolutions"]),
            _whole("batch", table["batch"], 1),
            _whole("accumulate", table.get("accumulate", 1), 1),
            _whole("epochs", table["epochs"], 1),
            _whole("warmup_epochs", table["warmup_epochs"], 0),
            tuple(SetEntry.from_row(row) for row in table["train"]),
            tuple(SetEntry.from_row(row) for row in table.get("test", [])),
        )


def _whole(name: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r} instead of a whole number of at least {least}")
    return value


def _resolution(pair: Sequence[int]) -> Resolution:
    if len(pair) != 2 or any(_whole("a side of a resolution", side, 16) % 16 for side in pair) or pair[1] > pair[0]:
        raise ValueError(f"a resolution is [width, height], multiples of 16, width first and larger; not {pair}")
    return pair[0], pair[1]


def read_mixtures(path: Path | None = None) -> dict[str, Mixture]:
    """The stages of a mixture file by name, in its order; by default DUSt3R's three.

    Raises:
        UserError: no such file, or not of this form.
    """
    source = resources.files("unposed.train") / DUST3R if path is None else path
    try:
        tables = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{source} cannot be read as a mixture of training sets: {error}.") from error
    stages = {}
    for name, table in tables.items():
        try:
            stages[name] = Mixture.from_table(name, table)
        except KeyError as error:
            raise UserError(f"{source}: the stage {name}, or a set of it, lacks {error}.") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{source}: the stage {name} cannot be understood: {error}.") from error
    if not stages:
        raise UserError(f"{source} has no stage.")
    return stages


def open_training(mixture: Mixture, data: Path, *, correspondences: int = 0, workers: int = 0) -> PairLoader:
    """The training pairs of a stage, its sets being under ``data``; see ``unposed.train.sampling.PairLoader``.

    Raises:
        UserError: a set is missing or not in its layout, or there is none.
    """
    if not mixture.train:
        raise UserError(f"The stage {mixture.name} has no training set: give it one.")
    sets = [_opened(entry, data) for entry in _present(mixture.train, data)]
    return PairLoader(sets, mixture.resolutions, mixture.batch, correspondences=correspondences, workers=workers)


def open_tests(mixture: Mixture, data: Path, *, correspondences: int = 0, workers: int = 0) -> dict[str, PairLoader]:
    """The test sets of a stage by kind, at its first resolution, with their colours and without exchanged pairs.

    Their epoch 0 is always the same pairs in the same crops. Raises ``UserError`` as ``open_training`` does.
    """
    loaders: dict[str, PairLoader] = {}
    for entry in _present(mixture.test, data):
        name = entry.kind if entry.kind not in loaders else f"{entry.kind}_{len(loaders) + 1}"
        loaders[name] = PairLoader(
            [_opened(entry, data)],
            mixture.resolutions[:1],
            min(mixture.batch, entry.pairs),
            correspondences=correspondences,
            swapped=False,
            jitter=None,
            workers=workers,
        )
    return loaders


def _present(entries: Sequence[SetEntry], data: Path) -> Sequence[SetEntry]:
    """The entries, when all their folders are there."""
    missing = [str(data / entry.folder) for entry in entries if not (data / entry.folder).is_dir()]
    if missing:
        raise UserError(
            f"These training sets are missing: {', '.join(missing)}. Pre-process them or take them out of the mixture."
        )
    return entries


def _opened(entry: SetEntry, data: Path) -> MixedSet:
    return MixedSet(open_dataset(entry.kind, data / entry.folder, **entry.options), entry.pairs, entry.aug_crop)
