"""Options of DUSt3R's published training, light enough for the command line to read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class StageOptions:
    """DUSt3R's published training on pre-processed data sets (recipe dust3r); by its epochs if nothing else is said."""

    stage: Literal["224-linear", "512-linear", "512-dpt"] | None = None
    """Which of its three stages."""
    data: Path | None = None
    """Folder of the pre-processed sets."""
    mixture: Path | None = None
    """TOML file of sets, resolutions, batches and epochs in place of the published ones."""
    start: str | None = None
    """Weights to begin with: a CroCo or DUSt3R file, a run's folder, or a model's name; random without it."""
    freeze: Literal["none", "encoder"] = "none"
    """What is not trained."""
    bf16: bool = False
    """Train in bfloat16 where that is safe; the published training is in float32."""
    learning_rate: float = 1e-4
    """Peak learning rate; it ends at a hundredth of it."""
    batch: int | None = None
    """Pairs of each process and pass, in place of the mixture's."""
    accumulate: int | None = None
    """Passes a step, in place of the mixture's."""
    epochs: int | None = None
    """In place of the mixture's."""
    workers: int = 8
    """Loader processes of each training process."""
