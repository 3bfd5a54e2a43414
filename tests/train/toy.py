"""A recipe of milliseconds: a small network learns a fixed linear map. Run as a program, it trains until killed."""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unposed.train.budget import Steps
from unposed.train.loop import Cadence, train
from unposed.train.losses import masked_mean
from unposed.train.recipe import Batch, Optimisation


class Toy:
    name = "toy"
    optimisation = Optimisation(learning_rate=3e-2, weight_decay=0.0, ema=0.9)

    def __init__(
        self,
        width: int = 8,
        poisoned_step: int | None = None,
        samples: int = 16,
        noise: float = 0.0,
        pause: float = 0.0,
        holes: bool = False,
    ) -> None:
        """``holes``: a third of the samples has no truth, and the loss is the mean over the others."""
        self.holes = holes
        self.width, self.samples, self.noise, self.pause = width, samples, noise, pause
        self.poisoned_step = poisoned_step
        self.progress: list[float] = []
        self.truth = torch.linspace(-1, 1, width)

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(self.width, 1)

    def batch(self, index: int, progress: float, device: torch.device) -> Batch:
        time.sleep(self.pause)
        seeds = range(index * self.samples, (index + 1) * self.samples)
        rows = [torch.randn(self.width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        x = torch.stack(rows).to(device)
        self.progress.append(progress)
        if index == self.poisoned_step:
            x = x * torch.nan
        batch = {"x": x, "y": x @ self.truth.to(device)}
        return batch | ({"weight": _known(x).sum()} if self.holes else {})

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x = batch["x"] + self.noise * torch.randn_like(batch["x"])  # from the global generator
        errors = (model(x).squeeze(-1) - batch["y"]).square()
        error = masked_mean(errors, _known(batch["x"])) if self.holes else errors.mean()
        return {"total": error, "error": error}

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        assert not model.training
        with torch.no_grad():
            return {"error": self.loss(model, Toy(self.width).batch(10**6, 0.0, device))["total"].item()}

    def preview(self, model: nn.Module, device: torch.device) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    def metadata(self) -> dict[str, Any]:
        return {"system": "toy", "config": {"width": self.width}, "card": "a toy"}


def _known(x: Tensor) -> Tensor:
    return x[:, 0] > -0.4


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--accumulate", type=int, default=1)
    for name, default in (("samples", 16), ("noise", 0.0), ("pause", 0.0)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--holes", action="store_true")
    options = parser.parse_args()
    toy = Toy(samples=options.samples, noise=options.noise, pause=options.pause, holes=options.holes)
    toy.optimisation = replace(toy.optimisation, accumulate=options.accumulate)
    budget = 10 if options.steps is None else Steps(options.steps)
    train(toy, budget, options.out, device="cpu", cadence=Cadence(checkpoint_seconds=0.2, log_steps=1, validations=2))
