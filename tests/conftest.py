"""Options of the whole suite."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--goldens",
        type=Path,
        default=Path(__file__).parent / "goldens",
        help="folder of reference numbers (<system>/<case>.json and .npz) that tests/parity compares with",
    )
