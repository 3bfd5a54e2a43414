"""Procedural pairs along a curriculum: which resolution, overlap and batch at which share of the clock."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unposed.synth import Textures, augment, load_textures, procedural_textures, render_scenes
from unposed.train.pairs import pairs_of_views
from unposed.train.recipe import Batch

_VALIDATION_SEED = 10**9
"""Scenes from this seed on are never trained on; training takes the step number as its seed."""


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum."""

    until: float
    """Share of the clock at which it ends."""
    shapes: tuple[tuple[int, int], ...]
    """(height, width) of the images; one is drawn for every step. Multiples of 16."""
    scenes: int
    """Rendered anew for every step."""
    pairs: int
    """Ordered pairs of each scene."""
    overlap: tuple[float, float] = (0.15, 1.0)
    """Preferred share of view 1 that view 2 sees."""
    views: int = 4
    """Of each scene."""
    correspondences: int = 1024
    """Of each pair, for the matching term."""


class ScenePairs:
    """Pairs of procedural scenes: an endless stream for training, a fixed set for validation."""

    def __init__(
        self, textures: Path | None, stages: Sequence[Stage], validation: Sequence[tuple[int, int]], size: int
    ) -> None:
        """``textures`` is a folder for ``unposed.synth.load_textures`` (None: procedural patterns only).

        ``validation`` are the (height, width) of the validation sets, of ``size`` pairs each.
        """
        self._folder, self._stages, self._shapes, self._size = textures, tuple(stages), tuple(validation), size
        self._textures: dict[tuple[str, bool], Textures] = {}

    def batch(self, step: int, progress: float, device: torch.device) -> Batch:
        """Training pairs of a step; see ``unposed.train.pairs.pair_batch``."""
        stage = next((s for s in self._stages if progress < s.until), self._stages[-1])
        height, width = random.Random(step).choice(stage.shapes)
        return self._make(step, stage, height, width, device, training=True)

    def validation(self, device: torch.device) -> dict[str, Batch]:
        """The validation sets by size, e.g. ``224x224``: scenes and textures that training never sees."""
        stage = Stage(1.0, self._shapes, scenes=-(-self._size // 2), pairs=2, overlap=(0.2, 1.0))
        return {
            f"{height}x{width}": self._make(_VALIDATION_SEED + k, stage, height, width, device, training=False)
            for k, (height, width) in enumerate(self._shapes)
        }

    def _make(self, seed: int, stage: Stage, height: int, width: int, device: torch.device, training: bool) -> Batch:
        generator = torch.Generator(device).manual_seed(seed)
        textures = self._textures_on(device, training)
        views = render_scenes(seed, stage.scenes, stage.views, height, width, textures=textures, device=device)
        images = augment(views.images, generator, 1.0 if training else 0.5)
        count = min(stage.correspondences, height * width // 8)
        return pairs_of_views(views, images, stage.pairs, stage.overlap, count, generator)

    def _textures_on(self, device: torch.device, training: bool) -> Textures:
        key = (str(device), training)
        if key not in self._textures:
            if self._folder is None:
                self._textures[key] = procedural_textures(0 if training else 1, device)
            else:
                self._textures[key] = load_textures(self._folder, device, "train" if training else "validation")
        return self._textures[key]
