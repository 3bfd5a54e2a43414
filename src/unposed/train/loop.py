"""The training loop: by the clock or by steps, in one process or many, and it survives being killed.

A step makes its batches on the device, takes the loss under bfloat16 autocast (CUDA), and updates by fused AdamW;
nothing is read back to the host but the log, every few dozen steps. What is validated and saved is the running average
of the weights.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from unposed.errors import UserError
from unposed.train.budget import Budget, Clock
from unposed.train.checkpoint import (
    BEST,
    clear_partial,
    has_checkpoint,
    load_checkpoint,
    load_training,
    save_checkpoint,
)
from unposed.train.distributed import Processes, random_state, restore_random_state
from unposed.train.learner import Learner
from unposed.train.log import Record, RunLog
from unposed.train.meter import FlopCounter, Meter
from unposed.train.recipe import Batch, Recipe


@dataclass(frozen=True)
class Cadence:
    """How often the loop does what is not training."""

    checkpoint_seconds: float = 60.0
    log_steps: int = 50
    """The device is waited for at every log."""
    validations: int = 4
    """Validations evenly over the run, the last at its end; one more is made before the first step."""


@dataclass(frozen=True)
class Summary:
    """What a finished run has done."""

    run: Path
    steps: int
    """All steps so far, those of the resumed run included."""
    pairs: int
    minutes: float
    validation: dict[str, float]
    pairs_per_s: float


@dataclass
class _Progress:
    """What a resumed run goes on from."""

    step: int = 0
    pairs: int = 0
    minutes: float = 0.0
    validation: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    """Lowest test loss."""


def train(
    recipe: Recipe,
    budget: float | Budget,
    out: Path,
    *,
    resume: Path | None = None,
    begin: float = 0.0,
    device: str = "auto",
    processes: Processes | None = None,
    compiled: bool | None = None,
    cadence: Cadence | None = None,
    tensorboard: bool = False,
    on_record: Callable[[Record], None] | None = None,
) -> Summary:
    """Train until the budget is used up, and leave a checkpoint in ``out``.

    ``budget``: minutes of wall clock, compilation and validation included, or ``Steps``. ``out`` gets ``checkpoint/``
    (and ``best/``, see ``Recipe.validate``), ``log.jsonl`` (appended), ``preview.png`` and, where wanted,
    ``tensorboard/``.

    ``resume`` is the ``out`` of an earlier run. By the clock, its weights and step number go on under a fresh
    optimiser and a fresh warm-up. By steps, everything goes on as if it had never stopped; so does, without
    ``resume``, a run whose ``out`` has a checkpoint. ``begin`` skips that share of the recipe's curriculum.

    Where the run has several processes (``unposed.train.distributed``), every one calls this, and ``out`` is a folder
    that all of them see. ``processes`` are those that the recipe was made for, on their ``device``.

    ``compiled`` defaults to CUDA with one process; where compilation fails, the run goes on without it and says so in
    the log. Ctrl-C ends a run of one process as its end does.

    Raises:
        UserError: ``resume`` holds no checkpoint or another network's, ``out`` cannot be written, no such device.
    """
    if isinstance(budget, int | float):
        if budget <= 0:
            raise UserError("the training time must be more than 0 minutes: give --minutes.")
        budget = Clock(budget)
    processes = processes or Processes(device)
    if resume is None and budget.exact and has_checkpoint(out):
        resume = out
    run = _Run(recipe, budget, out, processes, resume, begin, cadence or Cadence(), compiled)
    return run.go(tensorboard, on_record)


class _Objective(nn.Module):
    """The loss as a module of the network, which is what can be compiled and run in parallel."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        super().__init__()
        self._recipe, self.model = recipe, model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a batch by name."""
        kind = next(iter(batch.values())).device.type
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" and self._recipe.optimisation.bfloat16):
            return self._recipe.loss(self.model, batch)


class _Run:
    """The state of one run of the loop."""

    def __init__(
        self,
        recipe: Recipe,
        budget: Budget,
        out: Path,
        processes: Processes,
        resume: Path | None,
        begin: float,
        cadence: Cadence,
        compiled: bool | None,
    ) -> None:
        self._started = time.perf_counter()
        self._recipe, self._budget, self._out, self._processes = recipe, budget, out, processes
        self._begin, self._cadence, self._device = begin, cadence, processes.device
        self._progress = _Progress()
        self._continues = resume is not None and budget.exact
        model = recipe.build()
        if resume is not None:
            weights, self._progress = _restored(model, recipe, resume)
        model.to(self._device).train()
        self._learner = Learner(model, recipe.optimisation, self._device)
        self._objective = _Objective(recipe, model)
        self._parallel = processes.parallel(self._objective)
        self._compiled = self._device.type == "cuda" and processes.world == 1 if compiled is None else compiled
        if self._compiled:
            torch._dynamo.config.recompile_limit = 64  # the curriculum changes the shapes
            self._compiled_loss = torch.compile(self._parallel)
        if self._device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        self._flops = FlopCounter(lambda batch: self._objective(batch)["total"], model)
        self._meter = Meter(self._device)
        self._first_step = 0 if self._continues else self._progress.step
        """Since when the learner has learned."""
        self._pairs_now = 0
        self._training_seconds = 0.0
        self._saved = time.perf_counter()
        if self._continues and resume is not None:
            training = load_training(resume)
            self._learner.restore(weights, training["learner"])
            restore_random_state(training["random"], processes.rank, self._device)

    def go(self, tensorboard: bool, on_record: Callable[[Record], None] | None) -> Summary:
        """Validate, train until the budget is used up, validate, save."""
        self._log = None
        if self._processes.is_main:
            self._log = RunLog(self._out, self._progress.step if self._budget.exact else None, tensorboard, on_record)
            clear_partial(self._out)
        if not self._continues:
            self._validate()
        try:
            self._steps()
        except KeyboardInterrupt:
            if self._processes.world > 1:
                raise
            self._write({"interrupted": True})
        self._validate()
        self._save()
        if self._log is not None:
            self._log.close()
        self._processes.leave()
        done = self._progress
        rate = self._pairs_now / max(self._training_seconds, 1e-9)
        return Summary(self._out, done.step, done.pairs, self._minutes(), done.validation, rate)

    def _steps(self) -> None:
        """Train until the budget is used up, with the validations and checkpoints on the way."""
        share, save = self._agreed()
        validated = self._validations_due(share)
        while share < 1.0 or self._progress.step == self._first_step:
            self._step(share)
            share, save = self._agreed()
            due = self._validations_due(share)
            if share < 1.0 and due > validated:
                validated = due
                self._validate()
            if save:
                self._save()

    def _agreed(self) -> tuple[float, bool]:
        """Share of the budget that is used up, and whether it is time for a checkpoint, by the main process."""
        due = time.perf_counter() - self._saved > self._cadence.checkpoint_seconds
        share, save = self._processes.agree(self._budget.share(self._progress.step), float(due))
        return share, bool(save)

    def _validations_due(self, share: float) -> int:
        return int(share * self._cadence.validations + 1e-9)

    def _minutes(self) -> float:
        return self._progress.minutes + (time.perf_counter() - self._started) / 60

    def _step(self, share: float) -> None:
        """One update of the weights and of their average."""
        begun = time.perf_counter()
        count = self._recipe.optimisation.accumulate
        with self._meter.timing("rendering"), torch.no_grad():
            batches = [self._batch(k, share) for k in range(count)]
            parts = self._shares(batches)
        pairs = sum(next(iter(batch.values())).shape[0] for batch in batches)
        flops = sum(self._flops.of(batch) for batch in batches)
        sums: dict[str, Tensor] = {}
        for k, (batch, part) in enumerate(zip(batches, parts, strict=True)):
            waits = nullcontext() if k == count - 1 else self._processes.accumulating(self._parallel)
            with self._meter.timing("network"), waits:
                for name, loss in self._gradient(batch, part).items():
                    sums[name] = sums.get(name, torch.zeros_like(loss)) + loss.detach() * part
        with self._meter.timing("network"):
            rate, norm = self._learner.step(share, self._progress.step - self._first_step)
        self._progress.step += 1
        self._progress.pairs += pairs * self._processes.world
        self._pairs_now += pairs * self._processes.world
        self._meter.add(sums | {"gradient_norm": norm}, pairs, flops)
        taken = self._progress.step - self._first_step
        if taken % self._cadence.log_steps == 0 or taken == 1:
            self._write(self._measured() | {"learning_rate": rate, "share": share})
        self._training_seconds += time.perf_counter() - begun

    def _batch(self, k: int, share: float) -> Batch:
        """Batch ``k`` of this process in this step."""
        processes = self._processes
        passes = self._progress.step * self._recipe.optimisation.accumulate + k
        progress = self._begin + (1 - self._begin) * share
        return self._recipe.batch(passes * processes.world + processes.rank, progress, self._device)

    def _shares(self, batches: list[Batch]) -> Tensor:
        """What each batch of this process counts in the step: 1 together, on average over the processes.

        Means are over pixels, of which batches have more or fewer: by ``weight`` they make the mean of one large batch.
        """
        if "weight" not in batches[0]:
            return torch.full((len(batches),), 1 / len(batches), device=self._device)
        weights = torch.stack([batch["weight"] for batch in batches]).float()
        total = self._processes.sum(weights.sum()).clamp(min=1)
        return weights * (self._processes.world / total)

    def _gradient(self, batch: Batch, part: Tensor) -> dict[str, Tensor]:
        """Losses of a batch, after adding ``part`` of the gradient of their total to the parameters."""
        if self._compiled:
            try:
                return self._backward(self._compiled_loss(batch), part)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever the compiler trips over, the step can be taken without it
                self._compiled = False
                self._learner.forget_gradient()
                self._write({"compilation_failed": f"{type(error).__name__}: {str(error)[:500]}"})
        return self._backward(self._parallel(batch), part)

    def _backward(self, losses: dict[str, Tensor], part: Tensor) -> dict[str, Tensor]:
        self._learner.backward(losses["total"] * part)
        return losses

    def _measured(self) -> dict[str, float]:
        """Means since the last log over steps and processes; the rates are those of all processes together."""
        record = self._processes.mean(self._meter.read())
        return {k: v * self._processes.world if k in ("pairs_per_s", "tflops") else v for k, v in record.items()}

    @torch.no_grad()
    def _validate(self) -> None:
        begun = time.perf_counter()
        self._learner.copy_buffers()
        progress = self._progress
        progress.validation = self._recipe.validate(self._learner.average, self._device)
        if self._log is not None:
            self._log.show(self._recipe.preview(self._learner.average, self._device), progress.step)
        seconds = time.perf_counter() - begun
        self._budget.keep_back(1.3 * seconds + 1.0)  # the last checkpoint follows
        self._meter.skip_pause(seconds)
        self._write({"validation": progress.validation, "validation_seconds": seconds})
        loss = progress.validation.get("test_loss")
        if loss is not None and (progress.best is None or loss < progress.best):
            progress.best = loss
            if self._processes.is_main:
                save_checkpoint(self._out, self._weights(), self._state(), half=False, folder=BEST)

    def _save(self) -> None:
        begun = time.perf_counter()
        self._learner.copy_buffers()
        if self._budget.exact:
            random = self._processes.gather(random_state(self._device))
            if self._processes.is_main:
                training = {"learner": self._learner.state(), "random": random}
                save_checkpoint(self._out, self._weights(), self._state(), training, half=False)
        elif self._processes.is_main:
            save_checkpoint(self._out, self._weights(), self._state())
        self._saved = time.perf_counter()
        self._meter.skip_pause(self._saved - begun)

    def _weights(self) -> dict[str, Tensor]:
        return dict(self._learner.average.state_dict())

    def _state(self) -> dict[str, object]:
        return asdict(self._progress) | {
            "recipe": self._recipe.name,
            "minutes": self._minutes(),
            "metadata": self._recipe.metadata(),
        }

    def _write(self, record: Record) -> None:
        if self._log is not None:
            self._log.write({"step": self._progress.step, "minutes": self._minutes()} | record)


def _restored(model: nn.Module, recipe: Recipe, resume: Path) -> tuple[dict[str, Tensor], _Progress]:
    """Load the weights of an earlier run into the network; also returns them, and how far it had got."""
    weights, state = load_checkpoint(resume)
    if state["recipe"] != recipe.name:
        raise UserError(f"{resume} was trained by the recipe {state['recipe']}: resume it with that one.")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{resume} holds another size of the network {recipe.name}: give the same options.") from error
    progress = _Progress(state["step"], state["pairs"], state["minutes"], state["validation"], state.get("best"))
    return weights, progress
