"""One test per golden of the folder named by ``--goldens``."""

import importlib
from pathlib import Path

import pytest

from tests.parity.harness import find_cases

_NOT_RUNNERS = {"__init__", "conftest", "harness", "weights"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden" not in metafunc.fixturenames:
        return
    for module in sorted(Path(__file__).parent.glob("*.py")):
        if module.stem not in _NOT_RUNNERS and not module.stem.startswith("test_"):
            importlib.import_module(f"tests.parity.{module.stem}")
    cases = find_cases(metafunc.config.getoption("goldens"))
    metafunc.parametrize("golden", cases, ids=[f"{path.parent.name}/{path.stem}" for path in cases])
