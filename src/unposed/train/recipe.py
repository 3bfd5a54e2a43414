"""What the training loop asks of a recipe: a network, batches made on the device, a loss, and a validation.

The loop (``unposed.train.loop``) knows the clock, the processes, the optimiser, the running average of the weights,
checkpoints and logs; a recipe knows everything else. A new network is trained by writing one class with these members.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

Batch = dict[str, Tensor]
"""Tensors on the training device; the leading dimension of the first is the number of samples (pairs).

A scalar ``weight``, where there is one, says over how many elements the loss is a mean: by it the batches of a step
count.
"""


@dataclass(frozen=True)
class Optimisation:
    """AdamW under a learning rate that warms up linearly and falls as a half cosine until the end of the run."""

    learning_rate: float = 5e-4
    """Peak learning rate."""
    final_rate: float = 0.0
    """Learning rate at the end."""
    weight_decay: float = 0.05
    """Applied to matrices and kernels only, not to biases and norms."""
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: float = 0.04
    """Share of the run."""
    clip: float = 1.0
    """Largest norm of the gradient; infinite for no clipping."""
    ema: float = 0.999
    """Decay per step of the running average of the weights, the weights that are validated and saved; 0: no average."""
    accumulate: int = 1
    """Batches of a process whose gradients are averaged before a step is taken."""
    bfloat16: bool = True
    """Whether the loss is taken under bfloat16 autocast on CUDA."""


class Recipe(Protocol):
    """One way to train one network. ``build`` is called once; everything stochastic follows from the number of a batch.

    With several processes or with accumulation, a step takes several batches: batch ``index`` of a run of ``world``
    processes is for process ``index % world``. So the same samples make a step, however they are dealt out.
    """

    name: str
    """Short name, e.g. ``mini``; names the log and the exported file."""
    optimisation: Optimisation

    def build(self) -> nn.Module:
        """The network, freshly initialised, on the CPU. Its forward is what ``loss`` and ``validate`` call."""
        ...

    def batch(self, index: int, progress: float, device: torch.device) -> Batch:
        """Training samples of batch ``index``, made on ``device`` without reading anything back to the host.

        ``progress`` in [0, 1) is the share of the run that has passed: curricula are written in it, since how many
        steps fit into a clock is not known beforehand. Runs without gradients, in float32.
        """
        ...

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Scalar tensors by name; ``total`` is minimised, the others are only logged.

        Called under autocast as ``optimisation`` says: cast to float32 what needs it. Must not read anything back to
        the host (no ``.item()``, no indexing by masks: use weights and ``torch.where``), and gives no NaN for an empty
        mask.
        """
        ...

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Numbers on a fixed set never trained on; ``model`` holds the averaged weights, in eval mode.

        Every process calls it at the same time. Where there is a ``test_loss`` among the numbers, the weights with
        the lowest one so far are kept.
        """
        ...

    def preview(self, model: nn.Module, device: torch.device) -> UInt8[np.ndarray, "height width 3"]:
        """One picture of a few predictions of the validation set, to look at."""
        ...

    def metadata(self) -> dict[str, Any]:
        """What the exported file says of itself: ``system``, ``config`` (JSON values, for the network), ``card``."""
        ...
