"""What a training set is: a list of pairs of posed photos with depth. A new set is one file with one class."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float

from unposed.train.crop import PosedImage


@dataclass(frozen=True, eq=False)
class TrainingView:
    """One photo of a pair as its set stores it, before any crop."""

    photo: PosedImage
    """Colours, z-depth (0 is unknown) and intrinsics of the same pixels; pixel (0, 0) is the top-left one's centre."""
    world_from_camera: Float[np.ndarray, "4 4"]
    """Pose in the frame of the scene, float32; x right, y down, z forward. Units are those of the depth."""
    label: str
    """Set and scene, e.g. ``megadepth/0001/0``."""
    instance: str
    """The photo in its scene."""

    @property
    def valid(self) -> Bool[np.ndarray, "height width"]:
        """Pixels whose depth is known."""
        return self.photo.depth > 0


class PairDataset(Protocol):
    """Pairs of views of one place, by index; made once, then read by several loader processes at a time."""

    metric: bool
    """Whether lengths are metres."""

    def __len__(self) -> int:
        """Number of pairs."""
        ...

    def pair(self, index: int, rng: np.random.Generator) -> tuple[TrainingView, TrainingView]:
        """Pair ``index``; ``rng`` is for the sets that vary what a pair is (which partner, which frame nearby).

        The same index and the same state of ``rng`` give the same pair.

        Raises:
            UserError: a file of the pair is missing or damaged.
        """
        ...
