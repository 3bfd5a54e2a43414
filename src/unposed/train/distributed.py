"""The processes that train together, one a GPU: started by ``torchrun`` or ``accelerate launch``, or just this one.

The gradient is averaged over the processes by Accelerate's data parallelism. What else they tell each other are small
things on the host (the clock, numbers for the log, states of random generators); they have a channel of their own, so
that no GPU is waited for.
"""

import os
import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from unposed.errors import UserError
from unposed.nets.precision import choose_device

_PATIENCE = timedelta(hours=2)
"""How long a process waits for another one, which may be writing a checkpoint."""


class Processes:
    """This process among those of the run: ``rank`` of ``world``, on ``device``."""

    def __init__(self, device: str = "auto") -> None:
        """Join the run that the environment describes (``WORLD_SIZE``, as ``torchrun`` sets it).

        ``device``: ``auto``, ``cpu`` or ``cuda``; with several processes, each takes the GPU of its local rank.

        Raises:
            UserError: no such device; several processes, but Accelerate is not installed.
        """
        self.device = choose_device(device)
        self.rank, self.world = 0, int(os.environ.get("WORLD_SIZE", "1"))
        if self.world > 1:
            self._join()

    def _join(self) -> None:
        try:
            from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
        except ImportError as error:
            raise UserError("training in several processes needs accelerate: pip install 'unposed[train]'.") from error
        self._accelerator = Accelerator(
            cpu=self.device.type == "cpu",
            mixed_precision="no",  # the loop does that itself, whoever starts it
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=_PATIENCE),
                DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            ],
        )
        self.rank, self.world = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device
        self._channel = dist.new_group(backend="gloo", timeout=_PATIENCE)

    @property
    def is_main(self) -> bool:
        """The one process that writes."""
        return self.rank == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module, which lies on ``device``, with gradients averaged over the processes by every backward pass."""
        return module if self.world == 1 else self._accelerator.prepare_model(module)

    def accumulating(self, module: nn.Module) -> AbstractContextManager[None]:
        """Backward passes in it keep their gradients to this process."""
        return nullcontext() if self.world == 1 else self._accelerator.no_sync(module)

    def agree(self, *numbers: float) -> list[float]:
        """The numbers of the main process, in all."""
        if self.world == 1:
            return list(numbers)
        shared = torch.tensor(numbers, dtype=torch.float64)
        dist.broadcast(shared, 0, group=self._channel)
        return shared.tolist()

    def sum(self, value: Tensor) -> Tensor:
        """Sum over the processes of a tensor on ``device``; the host does not wait for it."""
        return value if self.world == 1 else self._accelerator.reduce(value, "sum")

    def mean(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Means over the processes, which all give the same names."""
        if self.world == 1:
            return dict(numbers)
        shared = torch.tensor(list(numbers.values()), dtype=torch.float64)
        dist.all_reduce(shared, group=self._channel)
        return dict(zip(numbers, (shared / self.world).tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """Everyone's value, in all, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._channel)
        return values

    def leave(self) -> None:
        """Wait for the others, since the main process may still be writing, and part."""
        if self.world > 1:
            dist.barrier(group=self._channel)
            self._accelerator.end_training()


def is_main_process() -> bool:
    """Whether this process is the one that writes and talks, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def random_state(device: torch.device) -> dict[str, Any]:
    """State of every global random generator that code in a step may draw from, as plain values and tensors."""
    name, keys, *rest = np.random.get_state()
    numpy_state = (name, np.asarray(keys).tolist(), *rest)
    state = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": numpy_state}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_state(states: Sequence[Mapping[str, Any]], rank: int, device: torch.device) -> None:
    """Set the generators as they were in the process of that rank; a process that is new keeps its own."""
    if rank >= len(states):
        return
    state = states[rank]
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
