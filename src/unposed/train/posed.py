"""Batches of one's own posed photos for a network that takes upright pictures: one orientation a batch."""

from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

from unposed.errors import UserError
from unposed.synth import augment
from unposed.train.crop import training_view
from unposed.train.datasets.base import TrainingView
from unposed.train.datasets.photos import LEAST_OVERLAP, find_photo_sets
from unposed.train.pairs import pair_batch
from unposed.train.recipe import Batch
from unposed.train.schedule import batch_order, mixture, resized_indices


class PosedPairs:
    """Pairs of a user's sets: the same recipe of crops, aspect ratios and orders as DUSt3R's training."""

    def __init__(self, root: Path, resolutions: list[tuple[int, int]], batch: int, correspondences: int = 1024) -> None:
        """``root`` is a set or a folder of sets; ``resolutions`` are (width, height) with width >= height.

        One set in ten (at least one, where there are several) is kept for validation; of a single set, the last
        tenth of the pairs. Raises ``UserError`` without a usable pair.
        """
        self._sets = find_photo_sets(root)
        self._view = cache(self._read)
        pairs = [[(k, i, j) for i, j in s.pairs(LEAST_OVERLAP)] for k, s in enumerate(self._sets)]
        if not any(pairs):
            raise UserError(f"{root} has no two photos that overlap by 10 %: nothing to train on.")
        self._resolutions, self._batch, self._correspondences = resolutions, batch, correspondences
        trained, self._held_out = _split(pairs)
        largest = max(len(p) for p in trained)
        factors = [largest // len(p) for p in trained]  # every set counts about the same
        rows = [trained[k][item] for k, item in mixture([len(p) for p in trained], factors)]
        self._groups: dict[str, list[tuple[int, int, int]]] = {}
        for row in rows:
            self._groups.setdefault(self._group(row), []).append(row)
        self._plan = lru_cache(1)(self._epoch)
        self._epoch_steps = len(self._plan(0))

    def _read(self, k: int, index: int) -> TrainingView:
        """One photo of a set; kept in memory (as the attribute ``_view``)."""
        return self._sets[k].view(index)

    def _group(self, pair: tuple[int, int, int]) -> str:
        """Pairs of one orientation share a batch; what is mixed or nearly square is cut to squares."""
        k, i, j = pair
        kinds = {_orientation(self._view(k, i)), _orientation(self._view(k, j))}
        return kinds.pop() if len(kinds) == 1 else "square"

    def batch(self, step: int, progress: float, device: torch.device) -> Batch:
        """Training pairs of a step; see ``unposed.train.pairs.pair_batch``."""
        epoch, k = divmod(step, self._epoch_steps)
        group, order = self._plan(epoch)[k]
        rows = [self._groups[group][sample] for sample in order[:, 0]]
        resolution = self._resolution(group, self._resolutions[order[0, 1]])
        rng = np.random.default_rng([1, step])
        return self._assemble(rows, resolution, rng, device, strength=1.0)

    def validation(self, device: torch.device) -> dict[str, Batch]:
        """Up to 64 held-out pairs, cut to squares."""
        resolution = self._resolution("square", self._resolutions[0])
        rows = self._held_out[:: max(1, len(self._held_out) // 64)][:64]
        return {"photos": self._assemble(rows, resolution, np.random.default_rng(0), device, strength=0.0)}

    def _epoch(self, epoch: int) -> list[tuple[str, np.ndarray]]:
        """Batches (group, rows of sample and aspect ratio) of an epoch, in order."""
        plan = []
        for group, rows in self._groups.items():
            size = max(self._batch, len(rows))
            filled = resized_indices(len(rows), size, epoch)
            order = batch_order(size, self._batch, len(self._resolutions), epoch)
            order[:, 0] = filled[order[:, 0]]
            plan += [(group, order[k : k + self._batch]) for k in range(0, len(order), self._batch)]
        shuffled = np.random.default_rng(epoch).permutation(len(plan))
        return [plan[k] for k in shuffled]

    def _resolution(self, group: str, resolution: tuple[int, int]) -> tuple[int, int]:
        if group != "square":
            return resolution
        side = int((resolution[0] * resolution[1]) ** 0.5) // 16 * 16
        return side, side

    def _assemble(
        self,
        rows: list[tuple[int, int, int]],
        resolution: tuple[int, int],
        rng: np.random.Generator,
        device: torch.device,
        strength: float,
    ) -> Batch:
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**31)))
        stored = [self._view(row[0], row[which]) for which in (1, 2) for row in rows]  # first views, then second ones
        views = [training_view(view.photo, resolution, rng) for view in stored]
        pixels, depth, intrinsics = (
            torch.from_numpy(np.stack([getattr(view, name) for view in views])).to(device)
            for name in ("image", "depth", "intrinsics")
        )
        poses = torch.from_numpy(np.stack([view.world_from_camera for view in stored])).to(device)
        images = augment(pixels.permute(0, 3, 1, 2).float() / 255, generator, strength)
        first = torch.arange(len(rows), device=device)
        count = min(self._correspondences, resolution[0] * resolution[1] // 8)
        return pair_batch(images, depth, intrinsics, poses, first, first + len(rows), count, generator)


def _orientation(view: TrainingView) -> str:
    """``landscape``, ``portrait`` or, where neither is clear, ``square``."""
    width, height = view.photo.size
    return "portrait" if height > 1.1 * width else "landscape" if height < 0.9 * width else "square"


def _split(
    pairs: list[list[tuple[int, int, int]]],
) -> tuple[list[list[tuple[int, int, int]]], list[tuple[int, int, int]]]:
    """Pairs per set to train on, and the pairs kept for validation."""
    usable = [p for p in pairs if p]
    if len(usable) > 1:
        kept = max(1, len(usable) // 10)
        return usable[:-kept], [row for p in usable[-kept:] for row in p]
    rows = usable[0]
    kept = max(1, len(rows) // 10)
    return [rows[:-kept] or rows], rows[-kept:]
