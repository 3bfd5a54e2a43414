"""Options of the whole suite."""

import os
from pathlib import Path

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--goldens",
        type=Path,
        default=Path(__file__).parent / "goldens",
        help="folder of reference numbers (<system>/<case>.json and .npz) that tests/parity compares with",
    )


def pytest_configure() -> None:
    """One thread a process, child processes included: the suite runs in parallel, and waiting threads are slow."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
