"""A recipe of milliseconds: a small network learns a fixed linear map. Run as a program, it trains until killed."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unposed.train.loop import Cadence, train
from unposed.train.recipe import Batch, Optimisation


class Toy:
    name = "toy"
    optimisation = Optimisation(learning_rate=3e-2, weight_decay=0.0, ema=0.9)

    def __init__(self, width: int = 8, poisoned_step: int | None = None) -> None:
        self.width = width
        self.poisoned_step = poisoned_step
        self.progress: list[float] = []
        self.truth = torch.linspace(-1, 1, width)

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(self.width, 1)

    def batch(self, step: int, progress: float, device: torch.device) -> Batch:
        x = torch.randn(16, self.width, generator=torch.Generator().manual_seed(step)).to(device)
        self.progress.append(progress)
        if step == self.poisoned_step:
            x = x * torch.nan
        return {"x": x, "y": x @ self.truth.to(device)}

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        error = (model(batch["x"]).squeeze(-1) - batch["y"]).square().mean()
        return {"total": error, "error": error}

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        assert not model.training
        with torch.no_grad():
            return {"error": self.loss(model, Toy(self.width).batch(10**6, 0.0, device))["total"].item()}

    def preview(self, model: nn.Module, device: torch.device) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    def metadata(self) -> dict[str, Any]:
        return {"system": "toy", "config": {"width": self.width}, "card": "a toy"}


if __name__ == "__main__":
    train(Toy(), 10, Path(sys.argv[1]), device="cpu", cadence=Cadence(checkpoint_seconds=0.2))
