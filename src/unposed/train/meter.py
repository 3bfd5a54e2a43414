"""What a training run measures about itself, without making the host wait for the device at every step."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unposed.train.recipe import Batch

_PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0}
"""Dense bfloat16 peak by a part of the device's name, from the makers' data sheets."""


class Meter:
    """Sums of losses on the device, and device time by activity, read together every few steps."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = time.perf_counter()
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._pairs = 0
        self._flops = 0.0
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def timing(self, activity: str) -> Iterator[None]:
        """Add the device time of the body to ``activity``."""
        if self._device.type == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            yield
            end.record()
            self._events.append((activity, begin, end))
        else:
            begin_s = time.perf_counter()
            yield
            self._seconds[activity] = self._seconds.get(activity, 0.0) + time.perf_counter() - begin_s

    def add(self, losses: dict[str, Tensor], pairs: int, flops: float) -> None:
        """Account for one step."""
        for name, value in losses.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1
        self._pairs += pairs
        self._flops += flops

    def skip_pause(self, seconds: float) -> None:
        """Leave a pause (validation, a checkpoint) out of the rates."""
        self._start += seconds

    def read(self) -> dict[str, float]:
        """Means and rates since the last reading; waits for the device."""
        means = torch.stack(list(self._sums.values())).div(self._steps).tolist()
        for activity, begin, end in self._events:
            self._seconds[activity] = self._seconds.get(activity, 0.0) + begin.elapsed_time(end) / 1e3
        now = time.perf_counter()
        elapsed = max(now - self._start, 1e-9)
        record = dict(zip(self._sums, means, strict=True))
        record |= {f"{activity}_share": s / elapsed for activity, s in self._seconds.items()}
        record |= {"pairs_per_s": self._pairs / elapsed, "tflops": self._flops / elapsed / 1e12}
        peak = peak_tflops(self._device)
        if peak:
            record["share_of_peak"] = record["tflops"] / peak
        self._start = now
        self._clear()
        return record


def peak_tflops(device: torch.device) -> float | None:
    """Stated bfloat16 peak of a known GPU, else None."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAK_TFLOPS.items() if part in name), None)


class FlopCounter:
    """Operations of a training step by the shapes of its batch, each counted once."""

    def __init__(self, loss: Callable[[Batch], Tensor], model: nn.Module) -> None:
        self._loss, self._model = loss, model
        self._counted: dict[tuple[torch.Size, ...], float] = {}

    def of(self, batch: Batch) -> float:
        """Floating-point operations of the loss and its gradient; see ``count_flops``."""
        key = tuple(tensor.shape for tensor in batch.values())
        if key not in self._counted:
            with _undisturbed(self._model, batch):
                self._counted[key] = count_flops(self._loss, batch)
        return self._counted[key]


@contextmanager
def _undisturbed(model: nn.Module, batch: Batch) -> Iterator[None]:
    """Afterwards, gradients, running statistics and random generators are as they were before."""
    gradients = [parameter.grad for parameter in model.parameters()]
    buffers = [buffer.clone() for buffer in model.buffers()]
    model.zero_grad(set_to_none=True)
    devices = {tensor.device for tensor in batch.values() if tensor.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        yield
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)


def count_flops(loss: Callable[[Batch], Tensor], batch: Batch) -> float:
    """Floating-point operations of the loss and its gradient on a batch; 0 where there is no memory to count them."""
    try:
        with FlopCounterMode(display=False) as counter:
            loss(batch).backward()
    except torch.OutOfMemoryError:
        return 0.0
    return float(counter.get_total_flops())
