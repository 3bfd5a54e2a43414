"""Rows of a benchmark as they become ready: kept on disk at once, so that a run that was cut goes on where it stopped.

A file of results is JSON lines: the settings first, then one row a sequence. JSON has no infinities: they are the
strings ``inf``, ``-inf`` and ``nan``.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unposed.errors import UserError
from unposed.io.atomic import atomic_write

Row = dict[str, Any]
"""``name``, numbers by the names of their columns, lists of errors, and ``error`` where it failed."""

_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


class Results:
    """The rows of one method on one benchmark, in memory and, with a path, on disk."""

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        """Read what an earlier run with the same settings left.

        Raises:
            UserError: the file is of a run with other settings, damaged, or cannot be written.
        """
        self.path, self.settings = path, json.loads(json.dumps(settings, default=str))
        self.rows: list[Row] = []
        if path is None:
            return
        if path.is_file() and path.stat().st_size:
            self._read(path)
        else:
            with atomic_write(path) as temporary:
                temporary.write_text(_line({"settings": self.settings}), encoding="utf-8")

    def _read(self, path: Path) -> None:
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        try:
            first, *rows = [json.loads(line) for line in whole.splitlines()]
            settings = first["settings"]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} holds no results of unposed eval ({error}); choose another --out.") from error
        if settings != self.settings:
            changed = sorted(
                k for k in settings.keys() | self.settings.keys() if settings.get(k) != self.settings.get(k)
            )
            raise UserError(f"{path} holds results of another {' and '.join(changed)}; choose another --out.")
        self.rows = [_decoded(row) for row in rows]
        if torn:  # the line that was being written when the run was killed
            with atomic_write(path) as temporary:
                temporary.write_bytes(whole + b"\n")

    def add(self, row: Row) -> None:
        """Keep a row; it is on the disk when this returns."""
        self.rows.append(row)
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())


def encoded(value: Any) -> Any:
    """The value as JSON can hold it, infinities as strings."""
    if isinstance(value, Mapping):
        return {key: encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item if key in ("name", "error") else _decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(encoded(value), allow_nan=False) + "\n"


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A Markdown table; missing cells are empty, numbers have four digits."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "/").replace("\n", " ")
