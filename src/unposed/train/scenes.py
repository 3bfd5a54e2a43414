"""Procedural pairs along a curriculum: which resolution, overlap and batch at which share of the clock."""

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from unposed.synth import RenderedViews, Textures, augment, load_textures, procedural_textures, render_scenes
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
    """Of each step; every one is used in one step only."""
    pairs: int
    """Ordered pairs of each scene."""
    overlap: tuple[float, float] = (0.15, 1.0)
    """Preferred share of view 1 that view 2 sees."""
    views: int = 4
    """Of each scene."""
    correspondences: int = 1024
    """Of each pair, for the matching term."""
    ahead: int = 1
    """Steps whose scenes are rendered together: drawing scenes and launching kernels is the host's work, and costs the
    same for many scenes as for few."""


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
        self._rendered: RenderedViews | None = None
        self._rendered_for: tuple[Stage, int, torch.device] | None = None
        self._compiles = True

    def batch(self, step: int, progress: float, device: torch.device) -> Batch:
        """Training pairs of a step; see ``unposed.train.pairs.pair_batch``."""
        stage = next((s for s in self._stages if progress < s.until), self._stages[-1])
        group, part = divmod(step, stage.ahead)
        if self._rendered_for != (stage, group, device):
            height, width = random.Random(group).choice(stage.shapes)
            self._rendered = self._render(step - part, stage, height, width, device)
            self._rendered_for = (stage, group, device)
        assert self._rendered is not None
        mine = slice(part * stage.scenes, (part + 1) * stage.scenes)
        views = replace(
            self._rendered, **{f.name: getattr(self._rendered, f.name)[mine] for f in fields(RenderedViews)}
        )
        return _pairs(step, stage, views, device, strength=1.0)

    def validation(self, device: torch.device) -> dict[str, Batch]:
        """The validation sets by size, e.g. ``224x224``: scenes and textures that training never sees."""
        stage = Stage(1.0, self._shapes, scenes=-(-self._size // 2), pairs=2, overlap=(0.2, 1.0))
        textures = self._textures_on(device, training=False)
        sets = {}
        for k, (height, width) in enumerate(self._shapes):
            seed = _VALIDATION_SEED + k
            views = render_scenes(seed, stage.scenes, stage.views, height, width, textures=textures, device=device)
            sets[f"{height}x{width}"] = _pairs(seed, stage, views, device, strength=0.5)
        return sets

    def _render(self, seed: int, stage: Stage, height: int, width: int, device: torch.device) -> RenderedViews:
        """Scenes of ``stage.ahead`` steps; on CUDA compiled where the stage has one shape, if it compiles."""
        textures = self._textures_on(device, training=True)
        size = (seed, stage.scenes * stage.ahead, stage.views, height, width)
        if self._compiles and device.type == "cuda" and len(stage.shapes) == 1:
            try:
                return render_scenes(*size, textures=textures, device=device, compiled=True)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever the compiler trips over, the scenes can be rendered without it
                warnings.warn(f"rendering could not be compiled: {error}", stacklevel=2)
                self._compiles = False
        return render_scenes(*size, textures=textures, device=device)

    def _textures_on(self, device: torch.device, training: bool) -> Textures:
        key = (str(device), training)
        if key not in self._textures:
            if self._folder is None:
                self._textures[key] = procedural_textures(0 if training else 1, device)
            else:
                self._textures[key] = load_textures(self._folder, device, "train" if training else "validation")
        return self._textures[key]


def _pairs(seed: int, stage: Stage, views: RenderedViews, device: torch.device, strength: float) -> Batch:
    """Pairs of views whose images are augmented."""
    generator = torch.Generator(device).manual_seed(seed)
    images = augment(views.images, generator, strength)
    count = min(stage.correspondences, views.depth[0, 0].numel() // 8)
    return pairs_of_views(views, images, stage.pairs, stage.overlap, count, generator)
