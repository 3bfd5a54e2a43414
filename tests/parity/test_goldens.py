"""Every golden against its runner; a case that no runner knows is skipped by name."""

from pathlib import Path

import pytest

from tests.parity.harness import load_case, runners_of


def test_golden(golden: Path, tmp_path: Path) -> None:
    system, name = golden.parent.name, golden.stem
    runners = runners_of(system, name)
    if not runners:
        pytest.skip(f"no runner for {system}/{name}")
    case = load_case(golden, tmp_path)
    for runner in runners:
        runner(case)
    assert not case.missing(), f"outputs that no runner compared: {case.missing()}"
