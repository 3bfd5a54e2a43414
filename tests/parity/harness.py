"""Goldens: what a reference implementation gave on a tiny configuration, as cases that a runner checks.

A runner is a function of one ``Case`` in a module of this folder, registered by system and case-name patterns:

    from tests.parity.harness import Case, runs

    @runs("dust3r", "net_*")
    def run(case: Case) -> None:
        model = build(case.config, case.state_dict())
        case.check("enc1", model.encode(case.tensor("view1")))

Case names, sub-case names, sizes and seeds differ from folder to folder: iterate over ``case.params``, never write them
down. A case fails when one of its outputs was neither checked nor excused. ``<system>/released.json`` (the manifests of
the released checkpoints) is a case called ``released`` whose ``params`` is the whole file; only the pattern
``released`` itself matches it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from tests.parity.weights import formula_state_dict

RELEASED = "released"

Runner = Callable[["Case"], None]
_runners: list[tuple[str, tuple[str, ...], Runner]] = []


@dataclass
class Case:
    """One golden: how it was computed, what went in, what came out, and how close is close enough."""

    system: str
    name: str
    config: dict[str, Any]
    params: dict[str, Any]
    seed: int | None
    manifest: dict[str, list[int]]
    weights: dict[str, Any]
    """Exceptions to the formula weights: ``override``, ``tied``, ``constants``."""
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    tolerance: dict[str, Any]
    scratch: Path
    """An empty folder for files that the runner writes, such as the reference's checkpoint container."""
    _stored_weights: dict[str, np.ndarray] = field(default_factory=dict)
    _compared: set[str] = field(default_factory=set)

    @property
    def tied(self) -> list[tuple[str, str]]:
        """Pairs of names (effective, ignored) that are one tensor in the reference."""
        return [(effective, ignored) for effective, ignored in self.weights.get("tied") or []]

    def tensor(self, name: str) -> torch.Tensor:
        """Input ``name`` as a tensor."""
        return torch.from_numpy(self.inputs[name].copy())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The network's weights under the reference's names; tied names both present, with different values."""
        arrays = formula_state_dict(self.manifest, self.seed or 0)
        arrays.update({name: np.asarray(v, np.float32) for name, v in (self.weights.get("constants") or {}).items()})
        arrays.update(self._stored_weights)
        return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}

    def check(self, name: str, value: torch.Tensor | ArrayLike) -> None:
        """Compare ``value`` with output ``name`` at the output's own tolerance."""
        expected = self.outputs[name]
        actual = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        tolerance = self.tolerance.get(name, self.tolerance)
        label = f"{self.system}/{self.name}: {name}"
        assert actual.shape == expected.shape, f"{label}: shape {actual.shape}, expected {expected.shape}"
        self._compared.add(name)
        if "cosine" in tolerance:
            assert _cosine(actual, expected) >= tolerance["cosine"], f"{label}: cosine {_cosine(actual, expected)}"
            return
        if tolerance.get("up_to_sign"):
            flip = (actual * expected).sum(-1, keepdims=True) < 0
            actual = np.where(flip, -actual, actual)
        if "scale_free_inside" in tolerance:
            inside = self.outputs[tolerance["scale_free_inside"]].astype(bool)
            actual, expected = actual[inside], expected[inside]
            actual = actual * ((actual * expected).sum() / (actual * actual).sum())
        np.testing.assert_allclose(
            actual, expected, rtol=tolerance["rtol"], atol=tolerance["atol"], equal_nan=True, err_msg=label
        )

    def excuse(self, name: str, reason: str) -> None:
        """Leave output ``name`` out because the reference is plainly wrong there."""
        assert reason.startswith("reference bug:"), "the only excuse is a bug of the reference"
        self._compared.add(name)

    def missing(self) -> list[str]:
        """Outputs that were neither checked nor excused."""
        return sorted(set(self.outputs) - self._compared)


def runs(system: str, *patterns: str) -> Callable[[Runner], Runner]:
    """Register the decorated function for the cases of ``system`` whose names match one of ``patterns`` (fnmatch)."""

    def register(runner: Runner) -> Runner:
        _runners.append((system, patterns, runner))
        return runner

    return register


def runners_of(system: str, name: str) -> list[Runner]:
    """All runners of a case; together they have to compare every output."""

    def matches(pattern: str) -> bool:
        return pattern == name if name == RELEASED else fnmatchcase(name, pattern)

    return [runner for owner, patterns, runner in _runners if owner == system and any(map(matches, patterns))]


def find_cases(goldens: Path) -> list[Path]:
    """All cases (their JSON files) of a folder, sorted."""
    return sorted(goldens.glob("*/*.json"))


def load_case(path: Path, scratch: Path) -> Case:
    """Read a case and its arrays."""
    record = _infinities(json.loads(path.read_text(encoding="utf-8")))
    if path.stem == RELEASED:
        return Case(path.parent.name, RELEASED, {}, record, None, {}, {}, {}, {}, {}, scratch)
    with np.load(path.with_suffix(".npz")) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return Case(
        system=record["system"],
        name=record["case"],
        config=record["config"],
        params=record["params"],
        seed=record.get("seed"),
        manifest=record.get("manifest") or {},
        weights=record.get("weights") or {},
        inputs={name.removeprefix("in."): array for name, array in arrays.items() if name.startswith("in.")},
        outputs={name: arrays[name] for name in record["outputs"]},
        tolerance=record["tolerance"],
        scratch=scratch,
        _stored_weights={
            name.removeprefix("weights."): array for name, array in arrays.items() if name.startswith("weights.")
        },
    )


def _infinities(value: Any) -> Any:
    """JSON has no infinities: the goldens write the strings inf and -inf."""
    if isinstance(value, dict):
        return {key: _infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_infinities(item) for item in value]
    return float(value) if value in ("inf", "-inf") else value


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))
