"""What every protocol is, and the loop that runs one."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame
from unposed.evaluation.results import Results, Row
from unposed.io.photos import PhotoSet
from unposed.tasks.progress import Reporter

Item = TypeVar("Item", contravariant=True)
FAILED_DEG = 180.0
"""Angle that counts for what was not found."""


class BenchmarkProtocol(Protocol[Item]):
    """What is run on one item of a data set (a sequence, a pair, a scene with queries), and what is made of it."""

    def score(self, item: Item) -> Row:
        """Numbers of one item. Whatever it raises makes the item a failed one."""
        ...

    def failed(self, item: Item) -> Row:
        """What an item counts for when ``score`` raises: the worst."""
        ...

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """The numbers of the whole data set; failed items are in them."""
        ...


def run_protocol(
    protocol: BenchmarkProtocol[Any], items: Iterable[Any], total: int, results: Results, report: Reporter
) -> list[Row]:
    """One row an item, those of an earlier run as they were; a failed item has its sentence under ``error``."""
    done = {row["name"]: row for row in results.rows}
    rows = []
    for k, item in enumerate(items):
        row = done.get(item.name)
        if row is None:
            row = _row(protocol, item)
            results.add(row)
        rows.append(row)
        report.update("sequences", k + 1, total)
    return rows


def _row(protocol: BenchmarkProtocol[Any], item: Any) -> Row:
    started = time.monotonic()
    try:
        row = dict(protocol.score(item))
    except Exception as error:  # whatever stops one sequence must not stop a benchmark of hours, nor go uncounted
        sentence = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        row = {**protocol.failed(item), "error": sentence}
    return {"name": item.name, **row, "seconds": round(time.monotonic() - started, 2)}


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many items there were, and how many of them failed."""
    return {"items": len(rows), "failed": sum("error" in row for row in rows)}


def photos_of(frames: Sequence[Frame]) -> PhotoSet:
    """Their photos, as tasks take them."""
    return PhotoSet([frame.photo for frame in frames], [])


def evenly(count: int, most: int | None) -> list[int]:
    """At most so many of ``count`` indices, evenly spread, the first among them."""
    if most is None or count <= most:
        return list(range(count))
    return np.linspace(0, count - 1, most).round().astype(int).tolist()
