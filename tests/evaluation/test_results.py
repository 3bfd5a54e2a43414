import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from unposed.errors import UserError
from unposed.evaluation.protocols.base import evenly, run_protocol
from unposed.evaluation.results import Results, markdown_table
from unposed.tasks.progress import Silent


@dataclass(frozen=True)
class _Item:
    name: str


class _Lengths:
    """Scores the length of the name; is killed at an item called stop."""

    def __init__(self) -> None:
        self.scored: list[str] = []

    def score(self, item: _Item) -> dict:
        if item.name == "stop":
            raise KeyboardInterrupt
        self.scored.append(item.name)
        if item.name == "bad":
            raise UserError("bad has no photos")
        return {"length": float(len(item.name)), "pairs": [1.5, math.inf]}

    def failed(self, item: _Item) -> dict:
        return {"length": math.inf, "pairs": []}

    def summary(self, rows) -> dict:
        return {}


def _run(path: Path, protocol: _Lengths, *names: str, **settings) -> list[dict]:
    items = [_Item(name) for name in names]
    return run_protocol(protocol, items, len(items), Results(path, {"model": "m"} | settings), Silent())


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "out" / "rows.jsonl"
    first, second = _Lengths(), _Lengths()
    with pytest.raises(KeyboardInterrupt):
        _run(path, first, "one", "bad", "stop", "three")
    with path.open("a") as file:
        file.write('{"name": "thr')  # cut in the middle of a line
    rows = _run(path, second, "one", "bad", "three")
    assert (first.scored, second.scored) == (["one", "bad"], ["three"])
    assert [row["name"] for row in rows] == ["one", "bad", "three"]
    assert rows[0]["pairs"] == [1.5, math.inf]
    assert rows[1]["error"] == "bad has no photos"
    assert math.isinf(rows[1]["length"])
    lines = path.read_text().splitlines()
    assert [json.loads(line).get("name") for line in lines] == [None, "one", "bad", "three"]


def test_results_of_other_settings_are_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    _run(path, _Lengths(), "one")
    with pytest.raises(UserError, match="another model; choose another --out"):
        _run(path, _Lengths(), "one", model="other")
    path.write_text("no results\n")
    with pytest.raises(UserError, match="no results of unposed eval"):
        _run(path, _Lengths(), "one")


def test_table() -> None:
    table = markdown_table([{"name": "a|b", "x": 0.123456, "n": 3}, {"name": "c"}], ["name", "n", "x"])
    assert table.splitlines()[2:] == ["| a/b | 3 | 0.1235 |", "| c |  |  |"]


def test_evenly() -> None:
    assert evenly(3, 5) == evenly(3, None) == [0, 1, 2]
    assert evenly(9, 3) == [0, 4, 8]
