"""Runs by steps: what is cut and gone on with ends at the very weights of what was not."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.train.toy import Toy
from unposed.errors import UserError
from unposed.train.budget import Steps
from unposed.train.checkpoint import load_checkpoint, load_training
from unposed.train.loop import Cadence, train

EVERY_STEP = Cadence(checkpoint_seconds=0, log_steps=1, validations=2)
"""A checkpoint after every step."""


def run(out: Path, steps: int = 12, recipe: Toy | None = None, cadence: Cadence = EVERY_STEP, **options):
    return train(recipe or Toy(noise=0.1), Steps(steps), out, device="cpu", cadence=cadence, **options)


class Killed(Exception):
    pass


class Cut(Toy):
    """Stops in the middle of a step."""

    def __init__(self, index: int, **options) -> None:
        super().__init__(**options)
        self._index = index

    def batch(self, index, progress, device):
        if index == self._index:
            raise Killed
        return super().batch(index, progress, device)


def assert_same_run(a: Path, b: Path) -> None:
    (average_a, state_a), (average_b, state_b) = load_checkpoint(a), load_checkpoint(b)
    learner_a, learner_b = (load_training(run)["learner"] for run in (a, b))
    assert state_a["step"] == state_b["step"]
    for one, other in ((average_a, average_b), (learner_a["weights"], learner_b["weights"])):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    moments_a, moments_b = (learner["optimiser"]["state"] for learner in (learner_a, learner_b))
    assert all(torch.equal(moments_a[k]["exp_avg_sq"], moments_b[k]["exp_avg_sq"]) for k in moments_a)


def losses(out: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["total"]) for line in lines if "total" in line]


def test_a_run_by_steps_takes_them_and_ends_the_schedule(tmp_path):
    summary = run(tmp_path)
    assert summary.steps == 12
    assert summary.pairs == 12 * 16
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "validation" in line] == [0, 6, 12]
    assert load_checkpoint(tmp_path)[0]["weight"].dtype == torch.float32


@pytest.mark.parametrize("cut", [1, 6, 11])
def test_resumed_weights_are_those_of_an_unbroken_run(tmp_path, cut):
    run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "cut", recipe=Cut(cut, noise=0.1))
    torch.manual_seed(99)  # another process has drawn other numbers
    summary = run(tmp_path / "cut")
    assert summary.steps == 12
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


def test_accumulated_batches_make_the_step_of_one_large_batch(tmp_path):
    small = Toy(samples=4)
    small.optimisation = replace(small.optimisation, accumulate=4)
    assert run(tmp_path / "small", recipe=small).pairs == 12 * 16
    run(tmp_path / "large", recipe=Toy(samples=16))
    for (step_a, loss_a), (step_b, loss_b) in zip(losses(tmp_path / "small"), losses(tmp_path / "large"), strict=True):
        assert step_a == step_b
        assert loss_a == pytest.approx(loss_b, rel=1e-4)


def test_a_sigkill_at_any_time_costs_nothing_but_time(tmp_path):
    run(tmp_path / "whole", steps=60)
    command = [sys.executable, "-m", "tests.train.toy", str(tmp_path / "cut"), "--steps", "60", "--noise", "0.1"]
    process = subprocess.Popen([*command, "--pause", "0.05"], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "cut/checkpoint/state.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert 0 < load_checkpoint(tmp_path / "cut")[1]["step"] < 60
    run(tmp_path / "cut", steps=60)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_run_by_the_clock_cannot_go_on_by_steps(tmp_path):
    train(Toy(), 0.005, tmp_path / "clock", device="cpu")
    with pytest.raises(UserError, match="by the clock"):
        run(tmp_path / "steps", resume=tmp_path / "clock")


def test_the_lowest_test_loss_is_kept_as_best(tmp_path):
    class Worsening(Toy):
        scores = iter([3.0, 1.0, 2.0])

        def validate(self, model, device):
            return {"test_loss": next(self.scores)}

    run(tmp_path, recipe=Worsening())
    assert load_checkpoint(tmp_path / "best")[1]["step"] == 6
    assert load_checkpoint(tmp_path)[1]["best"] == 1.0


def test_tensorboard_has_the_losses_and_the_validation(tmp_path):
    run(tmp_path, tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"total", "learning_rate", "validation/error"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("total")] == list(range(1, 13))
