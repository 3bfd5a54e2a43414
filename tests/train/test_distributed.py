"""Two processes on the CPU (gloo), started as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tests.train.test_resume import assert_same_run, losses, run
from tests.train.toy import Toy
from unposed.errors import UserError
from unposed.train.checkpoint import load_checkpoint
from unposed.train.distributed import Processes

ROOT = Path(__file__).parents[2]
OPTIONS = ("--steps", "12", "--samples", "4", "--accumulate", "2", "--holes")
"""Of both: 12 steps of 2 processes x 2 batches x 4 samples."""


def two_processes(out: Path, *options: str) -> subprocess.Popen:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "tests.train.toy", str(out), *options]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    finished(two_processes(out, *OPTIONS))
    return out


def test_two_processes_take_the_steps_of_one_with_the_batch_of_both(two, tmp_path):
    summary = run(tmp_path, recipe=Toy(samples=16, holes=True))
    state = load_checkpoint(two)[1]
    assert (state["step"], state["pairs"]) == (12, summary.pairs)
    for (step, loss), (step_one, loss_one) in zip(losses(two), losses(tmp_path), strict=True):
        assert step == step_one
        assert loss == pytest.approx(loss_one, rel=1e-4)
    weights, weights_one = load_checkpoint(two)[0], load_checkpoint(tmp_path)[0]
    assert all(torch.allclose(weights[name], weights_one[name], atol=1e-6) for name in weights)


def test_two_killed_processes_go_on_to_the_weights_of_unbroken_ones(two, tmp_path):
    process = two_processes(tmp_path / "cut", *OPTIONS, "--pause", "0.1")
    deadline = time.monotonic() + 60
    while not (tmp_path / "cut/checkpoint/state.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    for victim in [*psutil.Process(process.pid).children(recursive=True), process]:
        os.kill(victim.pid, signal.SIGKILL)
    process.communicate()
    assert 0 < load_checkpoint(tmp_path / "cut")[1]["step"] < 12
    finished(two_processes(tmp_path / "cut", *OPTIONS))
    assert_same_run(two, tmp_path / "cut")
    assert json.loads((tmp_path / "cut/log.jsonl").read_text().splitlines()[-1])["step"] == 12


def test_several_processes_without_accelerate_say_what_to_install(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UserError, match=r"unposed\[train\]"):
        Processes("cpu")
