"""One benchmark from the data on disk to tables: reader, protocol, results that outlive an interruption."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from unposed.errors import UserError
from unposed.evaluation import photo_sets
from unposed.evaluation.benchmarks import BENCHMARKS, PHOTOS, Benchmark
from unposed.evaluation.datasets.registry import READERS
from unposed.evaluation.protocols.base import BenchmarkProtocol, run_protocol
from unposed.evaluation.protocols.depth_maps import SingleDepth
from unposed.evaluation.protocols.photos import PhotoSets
from unposed.evaluation.published import MEAN
from unposed.evaluation.results import Results, Row, encoded, markdown_table
from unposed.io.atomic import atomic_write
from unposed.io.query_poses import write_submission
from unposed.models.base import PairModel
from unposed.tasks.depth import DEPTH_MODEL
from unposed.tasks.inputs import as_model, model_identity
from unposed.tasks.progress import Reporter, Silent

BASELINE = "baseline"
MOST_ROWS = 100
"""Tables list sequences up to this number; beyond, only what is made of them."""


@dataclass(frozen=True)
class Outcome:
    """What a method scored on a benchmark."""

    method: str
    rows: list[Row]
    summary: Mapping[str, float]


def evaluate(
    name: str,
    root: str | Path,
    *,
    model: str | Path | PairModel = "auto",
    out: str | Path | None = None,
    baseline: bool = False,
    reader: str | None = None,
    scenes: Sequence[str] | None = None,
    limit: int | None = None,
    device: str = "auto",
    report: Reporter | None = None,
) -> list[Outcome]:
    """Run a benchmark (see ``BENCHMARKS``) on its data in ``root``.

    Args:
        name: of the benchmark; ``photos`` takes any folder, or folder of folders, with a ``gt.json``.
        root: folder of the data set, as its reader describes it.
        model: a registered name, a path to a released file, a loaded model, or ``auto``.
        out: folder for ``<benchmark>.<method>.jsonl`` (a row a sequence, as they become ready; the same call again
            computes only what is missing), ``<benchmark>.json`` and ``<benchmark>.md``; where the true poses are
            hidden, ``<benchmark>.<method>.txt`` for the server that knows them.
        baseline: measure the benchmark's plain baseline too, on the same data.
        reader: for data that lie in another layout than the benchmark's own, the name of its reader (``READERS``).
        scenes: only these, by the data set's own names.
        limit: only the first so many sequences or pairs.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        report: where progress and warnings go; nowhere by default.

    Returns:
        The model's outcome and, asked for and there, the baseline's.

    Raises:
        UserError: no such benchmark, data that are not there or damaged, or results of other settings in ``out``.
    """
    benchmark = BENCHMARKS.get(name)
    if benchmark is None:
        raise UserError(f"there is no benchmark called {name}; choose one of {', '.join(BENCHMARKS)}.")
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give the folder of the data.")
    if baseline and benchmark.baseline is None:
        raise UserError(f"{name} has no baseline; leave out --baseline.")
    if limit is not None and limit < 1:
        raise UserError(f"{limit} sequences are none; give a --limit of at least 1.")
    report = report or Silent()
    if reader is not None:
        benchmark = _with_reader(benchmark, reader)
    items = _read(benchmark, root, scenes)[:limit]
    loaded = as_model(model, device, report)
    protocol, label = benchmark.protocol(loaded), loaded.name
    if model == "auto":
        protocol, label = _for_auto(protocol, as_model(DEPTH_MODEL, device, report)), "auto"
    methods = {label: protocol}
    if baseline and benchmark.baseline is not None:
        methods[BASELINE] = benchmark.baseline()
    outcomes = []
    for method, protocol in methods.items():
        settings = {"benchmark": name, "root": str(root.resolve()), "reader": benchmark.reader, **_settings(protocol)}
        if method != BASELINE:
            settings["model"] = model_identity(model, loaded)
        path = None if out is None else Path(out) / f"{name}.{method}.jsonl"
        rows = run_protocol(protocol, items, len(items), Results(path, settings), report)
        outcomes.append(Outcome(method, rows, protocol.summary(rows)))
    if out is not None:
        _write(benchmark, outcomes, Path(out))
    return outcomes


def _with_reader(benchmark: Benchmark, reader: str) -> Benchmark:
    kind = READERS[benchmark.reader].kind if benchmark.reader in READERS else "sequences"
    fitting = [name for name, other in READERS.items() if other.kind == kind]
    if reader not in fitting:
        raise UserError(f"{benchmark.name} cannot be read by {reader}; readers that fit are {', '.join(fitting)}.")
    return replace(benchmark, reader=reader, scenes=None)


def _read(benchmark: Benchmark, root: Path, scenes: Sequence[str] | None) -> Sequence[Any]:
    chosen = benchmark.scenes if scenes is None else scenes
    if benchmark.reader == PHOTOS:
        return photo_sets.read(root, chosen)
    return READERS[benchmark.reader].read(root, chosen, **benchmark.options)


def _for_auto(protocol: BenchmarkProtocol[Any], alone: PairModel) -> BenchmarkProtocol[Any]:
    """``auto`` is another model for single photos, here as in ``unposed.depth``."""
    if isinstance(protocol, SingleDepth):
        return replace(protocol, model=alone)
    return replace(protocol, alone=alone) if isinstance(protocol, PhotoSets) else protocol


def _settings(protocol: BenchmarkProtocol[Any]) -> dict[str, Any]:
    """The protocol's numbers and names: what two runs must share to be one."""
    values = {field.name: getattr(protocol, field.name) for field in fields(protocol)}  # type: ignore[arg-type]
    return {
        key: value if isinstance(value, int | str) else repr(value)
        for key, value in values.items()
        if not callable(value) and key not in ("model", "alone")
    }


def table(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> str:
    """A Markdown table: sequences, the whole, and what papers report."""
    lines: list[dict[str, Any]] = []
    names = list(dict.fromkeys(row["name"] for outcome in outcomes for row in outcome.rows))
    listed = names if len(names) <= MOST_ROWS else []
    for name in [*listed, MEAN]:
        for outcome in outcomes:
            found = [outcome.summary] if name == MEAN else [row for row in outcome.rows if row["name"] == name]
            lines += [
                {**row, "name": f"**{MEAN}**" if name == MEAN else name, "method": outcome.method} for row in found
            ]
        lines += [
            {"name": name, "method": f"{row.method} (published)", **row.values}
            for row in benchmark.published
            if row.row == name
        ]
    failed = any("error" in row for outcome in outcomes for row in outcome.rows)
    columns = ["name", "method", *benchmark.columns, *(["error"] if failed and listed else [])]
    return markdown_table(lines, columns)


def _write(benchmark: Benchmark, outcomes: Sequence[Outcome], out: Path) -> None:
    facts = [f"{o.method}: {len(o.rows)} evaluated, {sum('error' in row for row in o.rows)} failed" for o in outcomes]
    text = (
        f"# {benchmark.title}\n\n{table(benchmark, outcomes)}\n\n{'; '.join(facts)}. Failed ones count as the worst.\n"
    )
    record = {
        "benchmark": benchmark.name,
        "methods": {o.method: {"summary": dict(o.summary), "rows": o.rows} for o in outcomes},
        "published": [{"method": p.method, "row": p.row, **p.values} for p in benchmark.published],
    }
    for outcome in outcomes:
        poses = {name: pose for row in outcome.rows for name, pose in row.get("poses", {}).items()}
        if poses:
            found = {name: None if pose is None else torch.tensor(pose) for name, pose in poses.items()}
            write_submission(out / f"{benchmark.name}.{outcome.method}.txt", found)
    with atomic_write(out / f"{benchmark.name}.md") as path:
        path.write_text(text, encoding="utf-8")
    with atomic_write(out / f"{benchmark.name}.json") as path:
        path.write_text(json.dumps(encoded(record), indent=1, allow_nan=False), encoding="utf-8")
