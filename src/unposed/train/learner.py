"""One update of the weights: AdamW, the guard against gradients that are not finite, and the running average."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from unposed.train.recipe import Optimisation
from unposed.train.schedule import warmup_cosine


class Learner:
    """What turns gradients into weights, and remembers something from step to step."""

    def __init__(self, model: nn.Module, settings: Optimisation, device: torch.device) -> None:
        """``model`` lies on ``device``; parameters that ask for no gradient stay as they are."""
        self._model, self._settings = model, settings
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        """Running average of the weights."""
        self._optimiser = _adamw(model, settings, device)
        # At scale 1 it scales nothing: it skips, on the device, a step whose gradient is not finite.
        self._scaler = torch.amp.GradScaler(device.type, init_scale=1.0, growth_interval=2**30)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss to the parameters."""
        self._scaler.scale(loss).backward()

    def forget_gradient(self) -> None:
        """Drop what ``backward`` has added."""
        self._optimiser.zero_grad(set_to_none=True)

    def step(self, share: float, steps_before: int) -> tuple[float, Tensor]:
        """Take the step of the gradient; returns the learning rate and the norm of the gradient before clipping."""
        settings = self._settings
        rate = warmup_cosine(share, settings.warmup, 1.0, settings.learning_rate, settings.final_rate)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._scaler.unscale_(self._optimiser)
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), settings.clip)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self.forget_gradient()
        decay = min(settings.ema, (2 + steps_before) / (11 + steps_before))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self._model.parameters()), 1 - decay)
        return rate, norm

    @torch.no_grad()
    def copy_buffers(self) -> None:
        """Give the averaged network the running statistics of norms, which are averages already."""
        for average, buffer in zip(self.average.buffers(), self._model.buffers(), strict=True):
            average.copy_(buffer)

    def state(self) -> dict[str, Any]:
        """All that a later run needs to go on, but for the average, which is the checkpoint's weights."""
        return {
            "weights": self._model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, average: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from ``state``, with the average of that time."""
        self.average.load_state_dict(average)
        self._model.load_state_dict(state["weights"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])


def _adamw(model: nn.Module, settings: Optimisation, device: torch.device) -> torch.optim.AdamW:
    """Fused AdamW; weight decay on matrices and kernels only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, fused=device.type in ("cuda", "cpu")
    )
