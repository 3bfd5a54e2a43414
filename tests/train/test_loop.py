import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.train.toy import Toy
from unposed.errors import UserError
from unposed.train.checkpoint import load_checkpoint
from unposed.train.export import export_checkpoint
from unposed.train.loop import Cadence, train

SECONDS = 1.5


@pytest.fixture(scope="module", autouse=True)
def _slow_imports() -> None:
    """The first optimiser of a process imports the compiler, which takes longer than these runs."""
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])


def run(recipe: Toy, out: Path, **options):
    return train(recipe, SECONDS / 60, out, device="cpu", cadence=Cadence(log_steps=20), **options)


def records(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_stops_by_the_clock_learns_and_logs(tmp_path):
    recipe = Toy()
    begun = time.perf_counter()
    summary = run(recipe, tmp_path)
    assert time.perf_counter() - begun < SECONDS + 1.0
    assert summary.steps > 30
    assert summary.pairs == 16 * summary.steps
    log = records(tmp_path)
    validations = [r["validation"]["error"] for r in log if "validation" in r]
    assert len(validations) >= 3
    assert validations[-1] < 0.01 * validations[0]
    steps = [r for r in log if "total" in r]
    assert {"pairs_per_s", "rendering_share", "network_share", "tflops", "gradient_norm"} <= set(steps[-1])
    assert steps[-1]["learning_rate"] < 0.3 * max(r["learning_rate"] for r in steps)
    assert 0 <= min(recipe.progress) < max(recipe.progress) < 1
    assert (tmp_path / "preview.png").exists()


def test_resume_goes_on_where_the_run_ended(tmp_path):
    first = run(Toy(), tmp_path / "a")
    recipe = Toy()
    second = run(recipe, tmp_path / "b", resume=tmp_path / "a", begin=0.5)
    assert second.steps > first.steps
    assert min(recipe.progress) >= 0.5
    start = next(r for r in records(tmp_path / "b") if "validation" in r)
    assert start["step"] == first.steps
    assert start["validation"]["error"] == pytest.approx(first.validation["error"], abs=1e-4)


def test_resume_refuses_what_does_not_fit(tmp_path):
    with pytest.raises(UserError, match="no training checkpoint"):
        run(Toy(), tmp_path / "a", resume=tmp_path / "nothing")
    run(Toy(), tmp_path / "a")
    with pytest.raises(UserError, match="another size"):
        run(Toy(width=9), tmp_path / "b", resume=tmp_path / "a")
    other = Toy()
    other.name = "other"
    with pytest.raises(UserError, match="recipe toy"):
        run(other, tmp_path / "b", resume=tmp_path / "a")
    with pytest.raises(UserError, match="minutes"):
        train(Toy(), 0, tmp_path / "c", device="cpu")


def test_a_step_without_finite_gradient_changes_nothing(tmp_path):
    summary = run(Toy(poisoned_step=5), tmp_path)
    assert summary.steps > 10
    assert summary.validation["error"] < 0.1


def test_a_loss_that_cannot_be_compiled_is_taken_as_it_is(tmp_path, monkeypatch):
    def broken(*_args, **_options):
        def call(_batch):
            raise RuntimeError("no compiler here")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    summary = run(Toy(), tmp_path, compiled=True)
    assert any("no compiler here" in r.get("compilation_failed", "") for r in records(tmp_path))
    assert summary.validation["error"] < 0.1


def test_every_checkpoint_has_the_statistics_of_its_own_time(tmp_path, monkeypatch):
    class Normed(Toy):
        def build(self):
            return torch.nn.Sequential(torch.nn.BatchNorm1d(self.width), super().build())

    seen = []

    def remember(out, weights, state):
        seen.append((state["step"], int(weights["0.num_batches_tracked"])))

    monkeypatch.setattr("unposed.train.loop.save_checkpoint", remember)
    train(Normed(), SECONDS / 60, tmp_path, device="cpu", cadence=Cadence(checkpoint_seconds=0.1, validations=1))
    assert len(seen) > 2
    assert len({count - step for step, count in seen}) == 1  # counting operations costs extra passes at the start


def test_a_killed_run_keeps_its_last_checkpoint(tmp_path):
    process = subprocess.Popen([sys.executable, "-m", "tests.train.toy", str(tmp_path)], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "checkpoint/state.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    weights, state = load_checkpoint(tmp_path)
    assert state["step"] > 0
    assert weights["weight"].isfinite().all()
    summary = run(Toy(), tmp_path, resume=tmp_path)
    assert summary.steps > state["step"]
    assert not list(tmp_path.glob(".checkpoint-*"))


def test_export_is_one_half_precision_file_that_says_what_it_is(tmp_path):
    run(Toy(), tmp_path / "run")
    metadata = export_checkpoint(tmp_path / "run", tmp_path / "toy.safetensors")
    assert metadata == {"system": "toy", "config": '{"width": 8}', "card": "a toy"}
    with safe_open(tmp_path / "toy.safetensors", "pt") as file:
        assert file.metadata() == metadata
        assert file.get_tensor("weight").dtype == torch.float16
        assert set(file.keys()) == {"weight", "bias"}
