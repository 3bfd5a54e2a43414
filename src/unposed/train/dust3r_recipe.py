"""DUSt3R's published training (section 4 of the paper): three stages, on the mixtures of ``unposed.train.mixtures``.

Each starts from the one before: 224 pixels with linear heads from CroCo v2, then 512 pixels in five aspect ratios,
then DPT heads.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from unposed.errors import UserError
from unposed.models.dust3r import Dust3r, Dust3rConfig
from unposed.train.distributed import Processes
from unposed.train.dust3r_files import start_from
from unposed.train.losses import ConfidenceWeighted, PairOutput, PairTruth, Regression
from unposed.train.mixtures import Mixture, open_tests, open_training, read_mixtures
from unposed.train.pairs import images_of
from unposed.train.recipe import Batch, Optimisation
from unposed.train.sampling import PairLoader
from unposed.train.stage_options import StageOptions
from unposed.train.validation import ViewMaps, picture

STAGES = {
    "224-linear": Dust3rConfig(img_size=(224, 224), head_type="linear"),
    "512-linear": Dust3rConfig(img_size=(512, 512), head_type="linear"),
    "512-dpt": Dust3rConfig(img_size=(512, 512), head_type="dpt"),
}
"""Networks of the stages, in their order."""


class Dust3rTraining:
    """A stage as a recipe of the loop; see ``unposed.train.recipe.Recipe`` for its members."""

    def __init__(
        self,
        name: str,
        config: Dust3rConfig,
        mixture: Mixture,
        data: Path,
        processes: Processes,
        options: StageOptions,
    ) -> None:
        """``data`` holds the sets of the mixture.

        Raises:
            UserError: a set is missing, or has not enough pairs for a batch.
        """
        self.name, self._config, self._options, self._processes = name, config, options, processes
        self.optimisation = Optimisation(
            learning_rate=options.learning_rate,
            final_rate=options.learning_rate / 100,
            warmup=min(mixture.warmup_epochs / mixture.epochs, 1.0),
            clip=float("inf"),
            ema=0.0,
            accumulate=mixture.accumulate,
            bfloat16=options.bf16,
        )
        self._stream = _Stream(open_training(mixture, data, workers=options.workers), processes)
        self._tests = open_tests(mixture, data, workers=options.workers)
        self.epochs = mixture.epochs
        self._loss = ConfidenceWeighted(Regression())
        self._test_loss = Regression(gt_scale=True, shift_invariant=True, scale_invariant=True)
        self._shown: Batch | None = None

    @property
    def steps(self) -> int:
        """Steps of all epochs, at least one."""
        return max(1, self.epochs * self._stream.batches_per_epoch // self.optimisation.accumulate)

    def build(self) -> nn.Module:
        """The network of the stage with the weights that it begins with."""
        torch.manual_seed(0)
        network = Dust3r(self._config)
        if self._options.start is not None:
            start_from(network, self._options.start)
        if self._options.freeze == "encoder":
            network.patch_embed.requires_grad_(False)
            network.encoder.requires_grad_(False)
        return network

    def batch(self, index: int, progress: float, device: torch.device) -> Batch:
        """Pairs in both orders, and in ``weight`` the number of pixels that the means of the loss are over."""
        batch = self._stream.batch(index, device)
        return batch | {"weight": batch["valid_1"].sum()}

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Confidence-weighted regression; both orders of a pair share the encoder."""
        maps = _both_views(model, batch, symmetrized=True)
        with torch.autocast(batch["views"].device.type, enabled=False):
            loss = self._loss(_output(maps), _truth(batch))
        return {"total": loss.total, **loss.parts}

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean and median over batches of the scale- and shift-invariant error, for every test set.

        ``test_loss`` is the lowest of the medians, by which the best weights are chosen.
        """
        numbers: dict[str, float] = {}
        for name, loader in self._tests.items():
            errors = self._processes.gather(self._errors(model, loader, device))
            flat = [error for part in errors for error in part]
            numbers |= {f"{name}/error": sum(flat) / len(flat), f"{name}/error_median": median(flat)}
        medians = [value for name, value in numbers.items() if name.endswith("/error_median")]
        return numbers | ({"test_loss": min(medians)} if medians else {})

    def _errors(self, model: nn.Module, loader: PairLoader, device: torch.device) -> list[float]:
        """Test loss of this process's batches; of all batches where they are too few to be dealt out."""
        shared = len(loader) >= loader.batch * self._processes.world
        rank, world = (self._processes.rank, self._processes.world) if shared else (0, 1)
        kind = device.type
        errors = []
        for batch in loader.batches(0, 0, rank, world, device):
            with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" and self.optimisation.bfloat16):
                maps = _both_views(model, batch)
            errors.append(self._test_loss(_output(maps), _truth(batch)).total)
        return torch.stack(errors).tolist()

    def preview(self, model: nn.Module, device: torch.device) -> UInt8[np.ndarray, "height width 3"]:
        """Predictions for the first pairs of the first test set, or of the training sets where there is none."""
        if self._shown is None:
            loader = next(iter(self._tests.values()), self._stream.loader)
            self._shown = next(loader.batches(0, device=device))
        batch = self._shown

        def network(images_1: Tensor, images_2: Tensor) -> tuple[ViewMaps, ViewMaps]:
            shapes = batch["true_shape_1"][: len(images_1)], batch["true_shape_2"][: len(images_2)]
            return model(images_1, images_2, *shapes)

        return picture(network, batch)

    def metadata(self) -> dict[str, Any]:
        """What the exported file says of itself."""
        return {"system": "dust3r", "config": asdict(self._config), "card": f"trained by unposed, stage {self.name}"}


class _Stream:
    """Batches by their number, read in order from the loader of their epoch."""

    def __init__(self, loader: PairLoader, processes: Processes) -> None:
        self.loader, self._processes = loader, processes
        self.batches_per_epoch = loader.steps(processes.world)
        """Of each process."""
        self._next: tuple[int, int] | None = None
        self._iterator: Iterator[Batch] = iter(())

    def batch(self, index: int, device: torch.device) -> Batch:
        """Batch ``index`` of the run; cheap when it is the one after the last."""
        epoch, position = divmod(index // self._processes.world, self.batches_per_epoch)
        if position == 0 or (epoch, position) != self._next:
            processes = self._processes
            self._iterator = self.loader.batches(epoch, position, processes.rank, processes.world, device)
        self._next = (epoch, position + 1)
        with torch.random.fork_rng(devices=[]):  # a loader that starts draws a seed
            return next(self._iterator)


def dust3r_stage(options: StageOptions, processes: Processes) -> Dust3rTraining:
    """The stage that a user asks for.

    Raises:
        UserError: no stage or no data given, a mixture file that cannot be read or lacks the stage, missing sets.
    """
    if options.stage is None or options.data is None:
        raise UserError("DUSt3R's published training needs both --stage and --data.")
    mixtures = read_mixtures(options.mixture)
    if options.stage not in mixtures:
        raise UserError(f"{options.mixture} has no stage [{options.stage}]: it has {', '.join(mixtures)}.")
    own = mixtures[options.stage]
    mixture = replace(
        own,
        batch=_given("batch", options.batch, own.batch),
        accumulate=_given("accumulate", options.accumulate, own.accumulate),
        epochs=_given("epochs", options.epochs, own.epochs),
    )
    return Dust3rTraining(f"dust3r-{options.stage}", STAGES[options.stage], mixture, options.data, processes, options)


def _given(name: str, value: int | None, otherwise: int) -> int:
    if value is not None and value < 1:
        raise UserError(f"--{name} must be at least 1.")
    return otherwise if value is None else value


def _both_views(model: nn.Module, batch: Batch, symmetrized: bool = False) -> tuple[ViewMaps, ViewMaps]:
    maps_1, maps_2 = model(*images_of(batch), batch["true_shape_1"], batch["true_shape_2"], symmetrized=symmetrized)
    return maps_1, maps_2


def _output(maps: tuple[ViewMaps, ViewMaps]) -> PairOutput:
    first, second = ({name: m.float() for name, m in view.items()} for view in maps)
    return PairOutput((first["points"], second["points"]), (first["confidence"], second["confidence"]))


def _truth(batch: Batch) -> PairTruth:
    return PairTruth((batch["points_1"], batch["points_2"]), (batch["valid_1"], batch["valid_2"]))
