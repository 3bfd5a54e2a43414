"""Pair predictions on disk: one file an ordered pair, so that memory holds one at a time and a killed run resumes.

Points are kept at 16 bits a coordinate (:mod:`unposed.io.pointmap_codec` says how exactly), confidence as float16
(half a thousandth), matches as float32: 3.1 MB for a pair of 512 x 384 views.
"""

import hashlib
import json
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unposed.errors import UserError
from unposed.io.atomic import atomic_write
from unposed.io.photos import ImageRule, Photo
from unposed.io.pointmap_codec import decode_pointmap, encode_pointmap
from unposed.views import Matches, Pair, PairPrediction

_RUN = "run.json"
_ENTRY = re.compile(r"(\d+)_(\d+)\.safetensors")
_FORMAT = 1
_LARGEST_HALF = 65504.0
_ABANDONED_AFTER = 3600.0
"""Seconds after which a temporary file is left over from a killed run."""


def run_fingerprint(model: str, rule: ImageRule, photos: Sequence[Photo]) -> str:
    """Names everything predictions depend on.

    ``model`` identifies the model, its weights and its precision; of the photos, content and order count.
    """
    parts = [_FORMAT, model, rule.size, rule.patch, rule.square_ok, [photo.digest for photo in photos]]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


class PairCache(Mapping[Pair, PairPrediction]):
    """The predictions of one run, in a folder; reading one decodes it anew, nothing is kept in memory."""

    def __init__(self, directory: Path, pairs: set[Pair], keep_descriptors: bool) -> None:
        self._directory = directory
        self._pairs = pairs
        self._keep_descriptors = keep_descriptors

    @classmethod
    def open(cls, directory: str | Path, fingerprint: str, *, keep_descriptors: bool = False) -> "PairCache":
        """Continue the run in ``directory`` if it has this fingerprint; otherwise start an empty one there.

        Entries that are damaged are removed, and so count as missing.

        Raises:
            UserError: the folder holds something else than a cache, or cannot be written.
        """
        directory = Path(directory)
        if directory.exists() and not directory.is_dir():
            raise UserError(f"{directory} is a file; choose a folder for the pair predictions.")
        if directory.exists() and not (directory / _RUN).exists() and any(directory.iterdir()):
            raise UserError(f"{directory} holds other files; choose a new folder for the pair predictions.")
        run = {"format": _FORMAT, "fingerprint": f"{fingerprint}{' with descriptors' if keep_descriptors else ''}"}
        if _read_run(directory) != run:
            for path in _entries(directory).values():  # before the new run is named: a kill here leaves the old run
                path.unlink(missing_ok=True)
            with atomic_write(directory / _RUN) as temporary:
                temporary.write_text(json.dumps(run), encoding="utf-8")
        _remove_abandoned(directory)
        return cls(directory, _intact_pairs(directory), keep_descriptors)

    def put(self, pair: Pair, prediction: PairPrediction) -> None:
        """Store what a model said of a pair, whole or not at all.

        Raises:
            UserError: the disk is full or cannot be written.
        """
        tensors = _encode(prediction, self._keep_descriptors)
        data = save(tensors, {"checksum": str(_checksum(tensors))})
        with atomic_write(self._path(pair), sync=False) as temporary:
            temporary.write_bytes(data)
        self._pairs.add(pair)

    def missing(self, pairs: Iterable[Pair]) -> list[Pair]:
        """The given pairs that still have to be predicted, in the given order."""
        return [pair for pair in pairs if pair not in self._pairs]

    def __getitem__(self, pair: Pair) -> PairPrediction:
        if pair not in self._pairs:
            raise KeyError(pair)
        tensors = _read(self._path(pair))
        if tensors is None:
            raise UserError(f"{self._path(pair)} was damaged during the run; run again to compute it anew.")
        return _decode(tensors)

    def __contains__(self, pair: object) -> bool:
        return pair in self._pairs

    def __iter__(self) -> Iterator[Pair]:
        return iter(sorted(self._pairs))

    def __len__(self) -> int:
        return len(self._pairs)

    def _path(self, pair: Pair) -> Path:
        return self._directory / f"{pair[0]:05d}_{pair[1]:05d}.safetensors"


def _encode(prediction: PairPrediction, keep_descriptors: bool) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    sides = {
        "i": (prediction.points_i, prediction.confidence_i, prediction.descriptors_i),
        "j": (prediction.points_j, prediction.confidence_j, prediction.descriptors_j),
    }
    for side, (points, confidence, descriptors) in sides.items():
        tensors.update({f"{name}_{side}": tensor for name, tensor in encode_pointmap(points).items()})
        tensors[f"confidence_{side}"] = confidence.clamp(max=_LARGEST_HALF).to(torch.float16)
        if keep_descriptors and descriptors is not None:
            tensors[f"descriptors_{side}"] = descriptors.to(torch.float16)
    if prediction.matches is not None:
        tensors["match_points_a"] = prediction.matches.points_a.to(torch.float32)
        tensors["match_points_b"] = prediction.matches.points_b.to(torch.float32)
        tensors["match_confidence"] = prediction.matches.confidence.to(torch.float32)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _decode(tensors: dict[str, Tensor]) -> PairPrediction:
    matches = None
    if "match_confidence" in tensors:
        matches = Matches(tensors["match_points_a"], tensors["match_points_b"], tensors["match_confidence"])
    parts = ("direction", "distance", "log_range")
    points_i, points_j = (decode_pointmap({part: tensors[f"{part}_{side}"] for part in parts}) for side in "ij")
    confidence_i, confidence_j = (tensors[f"confidence_{side}"].float() for side in "ij")
    descriptors_i, descriptors_j = (
        descriptors.float() if (descriptors := tensors.get(f"descriptors_{side}")) is not None else None
        for side in "ij"
    )
    return PairPrediction(points_i, points_j, confidence_i, confidence_j, descriptors_i, descriptors_j, matches)


def _read(path: Path) -> dict[str, Tensor] | None:
    """The tensors of an entry, memory-mapped; None if the file is damaged or gone."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            intact = (file.metadata() or {}).get("checksum") == str(_checksum(tensors))
    except (SafetensorError, OSError):
        return None
    return tensors if intact else None


def _checksum(tensors: dict[str, Tensor]) -> int:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].numpy().data, zlib.crc32(name.encode(), checksum))
    return checksum


def _read_run(directory: Path) -> object:
    try:
        return json.loads((directory / _RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _entries(directory: Path) -> dict[Pair, Path]:
    if not directory.exists():
        return {}
    matches = [(path, _ENTRY.fullmatch(path.name)) for path in directory.iterdir()]
    return {(int(match[1]), int(match[2])): path for path, match in matches if match is not None}


def _intact_pairs(directory: Path) -> set[Pair]:
    """Pairs whose files are whole; the others are removed."""
    intact = set()
    for pair, path in _entries(directory).items():
        if _read(path) is None:
            path.unlink(missing_ok=True)
        else:
            intact.add(pair)
    return intact


def _remove_abandoned(directory: Path) -> None:
    """Temporary files of killed runs; those of a run that is under way now are younger."""
    for path in directory.glob(".*-*"):
        if path.is_file() and time.time() - path.stat().st_mtime > _ABANDONED_AFTER:
            path.unlink(missing_ok=True)
