"""The training loop: stops by the clock, keeps the host ahead of the device, and survives being killed.

One process, one device. A step makes its batch on the device, takes the loss under bfloat16 autocast (CUDA), and
updates by fused AdamW; nothing is read back to the host but the log, every few dozen steps. What is validated and
saved is the running average of the weights.
"""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from unposed.errors import UserError
from unposed.train.checkpoint import clear_partial, load_checkpoint, save_checkpoint
from unposed.train.meter import Meter, count_flops
from unposed.train.recipe import Batch, Optimisation, Recipe
from unposed.train.schedule import warmup_cosine

Record = dict[str, Any]
"""One line of ``log.jsonl``."""


@dataclass(frozen=True)
class Cadence:
    """How often the loop does what is not training."""

    checkpoint_seconds: float = 60.0
    log_steps: int = 50
    """The device is waited for at every log."""
    validations: int = 4
    """Validations evenly over the clock, the last at its end; one more is made before the first step."""


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


def train(
    recipe: Recipe,
    minutes: float,
    out: Path,
    *,
    resume: Path | None = None,
    begin: float = 0.0,
    device: str = "auto",
    compiled: bool | None = None,
    cadence: Cadence | None = None,
    on_record: Callable[[Record], None] | None = None,
) -> Summary:
    """Train for ``minutes`` of wall clock, compilation and validation included, and leave a checkpoint in ``out``.

    ``out`` gets ``checkpoint/`` (see ``unposed.train.checkpoint``), ``log.jsonl`` (appended) and ``preview.png``.
    ``resume`` is the ``out`` of an earlier run: its weights and step number go on under a fresh optimiser and a fresh
    warm-up. ``begin`` skips that share of the recipe's curriculum. ``compiled`` defaults to CUDA only; where
    compilation fails, the run goes on without it and says so in the log. Ctrl-C ends the run as the clock does.

    Raises:
        UserError: ``resume`` holds no checkpoint or another network's, ``out`` cannot be written, no such device.
    """
    if minutes <= 0:
        raise UserError("the training time must be more than 0 minutes: give --minutes.")
    run = _Run(recipe, minutes, out, pick_device(device), resume, begin, cadence or Cadence(), on_record, compiled)
    return run.go()


def pick_device(device: str) -> torch.device:
    """The device of a name; ``auto`` is CUDA where there is one. Raises ``UserError`` for one that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"no device is called {device}: use cpu or cuda.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu.")
    return chosen


class _Run:
    """The state of one run of the loop."""

    def __init__(
        self,
        recipe: Recipe,
        minutes: float,
        out: Path,
        device: torch.device,
        resume: Path | None,
        begin: float,
        cadence: Cadence,
        on_record: Callable[[Record], None] | None,
        compiled: bool | None,
    ) -> None:
        self._started = time.perf_counter()
        self._seconds = minutes * 60
        self._recipe, self._out, self._device = recipe, out, device
        self._begin, self._cadence, self._on_record = begin, cadence, on_record
        self._progress = _Progress()
        model = recipe.build()
        if resume is not None:
            self._progress = _restore(model, recipe, resume)
        self._model = model.to(device).train()
        self._average = copy.deepcopy(self._model).eval().requires_grad_(False)
        self._optimiser = _adamw(self._model, recipe.optimisation, device)
        # At scale 1 it scales nothing: it skips, on the device, a step whose gradient is not finite.
        self._scaler = torch.amp.GradScaler(device.type, init_scale=1.0, growth_interval=2**30)
        self._compiled = device.type == "cuda" if compiled is None else compiled
        if self._compiled:
            torch._dynamo.config.recompile_limit = 64  # the curriculum changes the shapes
            self._compiled_loss = torch.compile(self._loss)
        self._flops: dict[tuple[torch.Size, ...], float] = {}
        self._reserve = 0.0
        self._steps_now = 0
        self._pairs_now = 0
        self._training_seconds = 0.0
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        self._meter = Meter(device)

    def go(self) -> Summary:
        """Validate, train until the clock has run out, validate, save."""
        self._out.mkdir(parents=True, exist_ok=True)
        clear_partial(self._out)
        self._validate()
        validations, saved = 1, time.perf_counter()
        try:
            while (share := self._share()) < 1.0 or not self._steps_now:
                self._step(share)
                if share * self._cadence.validations >= validations:
                    validations += 1
                    self._validate()
                if time.perf_counter() - saved > self._cadence.checkpoint_seconds:
                    self._save()
                    saved = time.perf_counter()
        except KeyboardInterrupt:
            self._write({"interrupted": True})
        self._validate()
        self._save()
        done = self._progress
        rate = self._pairs_now / max(self._training_seconds, 1e-9)
        return Summary(self._out, done.step, done.pairs, self._minutes(), done.validation, rate)

    def _share(self) -> float:
        """Share of the training time that has passed, when the last validation is expected to end with the clock."""
        return (time.perf_counter() - self._started) / max(self._seconds - self._reserve, 1e-9)

    def _minutes(self) -> float:
        return self._progress.minutes + (time.perf_counter() - self._started) / 60

    def _step(self, share: float) -> None:
        """One update of the weights and of their average."""
        begun = time.perf_counter()
        optimisation = self._recipe.optimisation
        rate = warmup_cosine(share, optimisation.warmup, 1.0, optimisation.learning_rate)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        with self._meter.timing("rendering"), torch.no_grad():
            batch = self._recipe.batch(self._progress.step, self._begin + (1 - self._begin) * share, self._device)
        pairs = next(iter(batch.values())).shape[0]
        flops = self._flops_of(batch)
        with self._meter.timing("network"):
            losses = self._gradient(batch)
            self._scaler.unscale_(self._optimiser)
            norm = nn.utils.clip_grad_norm_(self._model.parameters(), optimisation.clip)
            self._scaler.step(self._optimiser)
            self._scaler.update()
            self._optimiser.zero_grad(set_to_none=True)
            self._steps_now += 1
            decay = min(optimisation.ema, (1 + self._steps_now) / (10 + self._steps_now))
            torch._foreach_lerp_(list(self._average.parameters()), list(self._model.parameters()), 1 - decay)
        self._progress.step += 1
        self._progress.pairs += pairs
        self._pairs_now += pairs
        self._meter.add(losses | {"gradient_norm": norm}, pairs, flops)
        if self._steps_now % self._cadence.log_steps == 0 or self._steps_now == 1:
            self._write(self._meter.read() | {"learning_rate": rate, "share": share})
        self._training_seconds += time.perf_counter() - begun

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            return self._recipe.loss(self._model, batch)

    def _gradient(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a batch, after adding the gradient of their total to the parameters."""
        if self._compiled:
            try:
                return self._backward(self._compiled_loss(batch))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever the compiler trips over, the step can be taken without it
                self._compiled = False
                self._optimiser.zero_grad(set_to_none=True)
                self._write({"compilation_failed": f"{type(error).__name__}: {str(error)[:500]}"})
        return self._backward(self._loss(batch))

    def _backward(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        self._scaler.scale(losses["total"]).backward()
        return losses

    def _flops_of(self, batch: Batch) -> float:
        """Operations of a step on such a batch, counted once for every shape."""
        key = tuple(tensor.shape for tensor in batch.values())
        if key not in self._flops:
            self._flops[key] = count_flops(lambda part: self._loss(part)["total"], batch)
            self._optimiser.zero_grad(set_to_none=True)
        return self._flops[key]

    @torch.no_grad()
    def _validate(self) -> None:
        begun = time.perf_counter()
        self._copy_buffers()
        self._progress.validation = self._recipe.validate(self._average, self._device)
        preview = self._recipe.preview(self._average, self._device)
        Image.fromarray(preview).save(self._out / "preview.png")
        seconds = time.perf_counter() - begun
        self._reserve = min(1.3 * seconds + 1.0, 0.3 * self._seconds)  # the last checkpoint follows
        self._meter.skip_pause(seconds)
        self._write({"validation": self._progress.validation, "validation_seconds": seconds})

    def _copy_buffers(self) -> None:
        """Give the averaged network the running statistics of norms, which are averages already."""
        for average, buffer in zip(self._average.buffers(), self._model.buffers(), strict=True):
            average.copy_(buffer)

    def _save(self) -> None:
        begun = time.perf_counter()
        self._copy_buffers()
        state = asdict(self._progress) | {
            "recipe": self._recipe.name,
            "minutes": self._minutes(),
            "metadata": self._recipe.metadata(),
        }
        save_checkpoint(self._out, dict(self._average.state_dict()), state)
        self._meter.skip_pause(time.perf_counter() - begun)

    def _write(self, record: Record) -> None:
        """Append one line to the log; rounded, since digits beyond the fifth are noise."""
        record = {"step": self._progress.step, "minutes": self._minutes()} | record
        rounded = json.loads(json.dumps(record), parse_float=lambda text: float(f"{float(text):.5g}"))
        with (self._out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(rounded) + "\n")
        if self._on_record is not None:
            self._on_record(rounded)


def _restore(model: nn.Module, recipe: Recipe, resume: Path) -> _Progress:
    """Load the weights of an earlier run into the network."""
    weights, state = load_checkpoint(resume)
    if state["recipe"] != recipe.name:
        raise UserError(f"{resume} was trained by the recipe {state['recipe']}: resume it with that one.")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{resume} holds another size of the network {recipe.name}: give the same options.") from error
    return _Progress(state["step"], state["pairs"], state["minutes"], state["validation"])


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


def train_command(
    recipe: str,
    minutes: float,
    out: Path,
    resume: Path | None = None,
    textures: Path | None = None,
    device: str = "auto",
    photos: Path | None = None,
    side: int | None = None,
    scenes: int | None = None,
    tiny: bool = False,
    begin: float = 0.0,
    on_record: Callable[[Record], None] | None = None,
) -> Summary:
    """Train one of the recipes ``mini``, ``dust3r`` and ``composed``; see ``train``.

    ``textures``: folder of tile_*, photo_* and pano_* images for the procedural scenes. ``photos``: train a pair
    network on one's own photos instead (``unposed.train.posed``). ``side``: one size of square images, a multiple of
    16, in place of the recipe's curriculum. ``scenes``: scenes (or pairs of photos) per step. ``tiny``: a small
    network for trying things out on a CPU.

    Raises:
        UserError: an unknown recipe, an option that the recipe does not have, and what ``train`` raises.
    """
    made = _recipe(recipe, textures, photos, side, scenes, tiny)
    return train(made, minutes, out, resume=resume, begin=begin, device=device, on_record=on_record)


def _recipe(
    name: str, textures: Path | None, photos: Path | None, side: int | None, scenes: int | None, tiny: bool
) -> Recipe:
    """The recipe of a name with a user's options."""
    from unposed.train import composed_recipe, recipes  # networks and scenes: only when they are trained

    if side is not None and (side < 32 or side % 16):
        raise UserError("--side must be a multiple of 16, at least 32.")
    if name == "mini":
        return recipes.mini_recipe(textures, side, scenes, photos, tiny)
    if tiny or name not in ("composed", "dust3r"):
        raise UserError(f"there is no {'tiny ' * tiny}recipe {name}: use mini (also --tiny), composed or dust3r.")
    if name == "dust3r":
        return recipes.dust3r_recipe(textures, side, scenes, photos)
    if textures is None or photos is not None or scenes is not None:
        raise UserError("the composed recipe needs --textures, and takes neither --photos nor --scenes.")
    config = composed_recipe.ComposedConfig() if side is None else composed_recipe.ComposedConfig(side=side)
    return composed_recipe.ComposedRecipe(textures, config)
