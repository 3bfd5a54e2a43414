"""Training on one's own photos: sets with cameras and depth (``gt.json``, as ``unposed synth`` writes it)."""

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unposed.errors import UserError
from unposed.geometry.transforms import invert_rigid
from unposed.synth import augment
from unposed.train.crop import PosedImage, training_view
from unposed.train.matching import covisible_pixels
from unposed.train.pairs import pair_batch
from unposed.train.recipe import Batch
from unposed.train.schedule import batch_order, mixture, resized_indices

_THINNED = 64
"""Overlap between photos is measured on depth maps thinned to about this many columns."""


@dataclass(frozen=True)
class _Row:
    """A photo of a set, as ``gt.json`` lists it."""

    name: str
    facts: dict[str, Any]


class PosedFolder:
    """Photos of one place with intrinsics, world poses and dense depth.

    ``gt.json``: ``images`` maps a file name to ``width height fx fy cx cy`` (pixel (0, 0) is the centre of the
    top-left pixel), ``world_to_camera`` (4 x 4) and ``depth`` (16-bit PNG, times ``depth_scale``; 0 is unknown) or
    ``disparity`` (16-bit PNG, times ``disparity_scale``; depth = fx ``baseline_m`` / (disparity + ``doffs``)).
    Photos without a pose or without depth are left out.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ``UserError`` where there are not two photos with pose and depth."""
        self.folder = folder
        try:
            self._facts = json.loads((folder / "gt.json").read_text(encoding="utf-8"))
            images = self._facts["images"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder} has no readable gt.json: write cameras and depth of its photos there."
            ) from error
        rows = [_Row(name, facts) for name, facts in images.items() if facts.get("world_to_camera") is not None]
        self._rows = [row for row in rows if "depth" in row.facts or "disparity" in row.facts]
        if len(self._rows) < 2:
            raise UserError(f"{folder} has fewer than two photos with a pose and a depth map: training needs both.")
        self.image = cache(self._image)

    def __len__(self) -> int:
        return len(self._rows)

    def _image(self, index: int) -> PosedImage:
        """Photo, depth and intrinsics; kept in memory (as the attribute ``image``)."""
        row = self._rows[index]
        try:
            with Image.open(self.folder / row.name) as photo:
                pixels = np.array(photo.convert("RGB"))
            depth = self._depth(row.facts)
            f = row.facts
            k = np.array([[f["fx"], 0, f["cx"]], [0, f["fy"], f["cy"]], [0, 0, 1]], np.float32)
        except (OSError, KeyError, ValueError) as error:
            raise UserError(
                f"{self.folder / row.name}: its photo, depth or camera cannot be read ({error})."
            ) from error
        if depth.shape != pixels.shape[:2]:
            raise UserError(f"{self.folder / row.name}: the depth map has another size than the photo.")
        return PosedImage(pixels, depth, k)

    def _depth(self, facts: dict[str, Any]) -> Float[np.ndarray, "height width"]:
        with Image.open(self.folder / (facts["depth"] if "depth" in facts else facts["disparity"])) as stored:
            values = np.array(stored).astype(np.float32)
        if "depth" in facts:
            return values * np.float32(self._facts["depth_scale"])
        disparity = values * self._facts["disparity_scale"] + self._facts.get("doffs_px_at_stored_size", 0.0)
        depth = facts["fx"] * self._facts["baseline_m"] / np.maximum(disparity, 1e-6)
        return np.where(values > 0, depth, 0.0).astype(np.float32)

    def world_from_camera(self, index: int) -> Float[Tensor, "4 4"]:
        """Pose of a photo's camera."""
        return invert_rigid(torch.tensor(self._rows[index].facts["world_to_camera"], dtype=torch.float64)).float()

    def pairs(self, least_overlap: float = 0.1) -> list[tuple[int, int]]:
        """Ordered pairs (i, j) of different photos where j sees at least this share of the known pixels of i."""
        thinned = [self._thinned(i) for i in range(len(self))]
        found = []
        for i, (depth_i, k_i) in enumerate(thinned):
            for j, (depth_j, k_j) in enumerate(thinned):
                j_from_i = invert_rigid(self.world_from_camera(j)) @ self.world_from_camera(i)
                _, seen = covisible_pixels(depth_i, depth_j, k_i, k_j, j_from_i, tolerance=0.1)
                if i != j and seen.sum() >= least_overlap * (depth_i > 0).sum().clamp(min=1):
                    found.append((i, j))
        return found

    def _thinned(self, index: int) -> tuple[Float[Tensor, "h w"], Float[Tensor, "3 3"]]:
        image = self.image(index)
        step = max(1, image.size[0] // _THINNED)
        scale = torch.tensor([step, step, 1.0])[:, None]
        return torch.from_numpy(image.depth[::step, ::step].copy()), torch.from_numpy(image.intrinsics) / scale

    def upright(self, index: int) -> str:
        """``landscape``, ``portrait`` or, where neither is clear, ``square``."""
        width, height = self.image(index).size
        return "portrait" if height > 1.1 * width else "landscape" if height < 0.9 * width else "square"


class PosedPairs:
    """Pairs of a user's sets: the same recipe of crops, aspect ratios and orders as DUSt3R's training."""

    def __init__(self, root: Path, resolutions: list[tuple[int, int]], batch: int, correspondences: int = 1024) -> None:
        """``root`` is a set or a folder of sets; ``resolutions`` are (width, height) with width >= height.

        One set in ten (at least one, where there are several) is kept for validation; of a single set, the last
        tenth of the pairs. Raises ``UserError`` without a usable pair.
        """
        folders = [root] if (root / "gt.json").exists() else sorted(p.parent for p in root.glob("*/gt.json"))
        self._sets = [PosedFolder(folder) for folder in folders]
        pairs = [[(k, i, j) for i, j in s.pairs()] for k, s in enumerate(self._sets)]
        if not any(pairs):
            raise UserError(
                f"{root} has no two photos with gt.json, depth and 10 % overlap: there is nothing to train on."
            )
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

    def _group(self, pair: tuple[int, int, int]) -> str:
        """Pairs of one orientation share a batch; what is mixed or nearly square is cut to squares."""
        k, i, j = pair
        kinds = {self._sets[k].upright(i), self._sets[k].upright(j)}
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
        photos = [(self._sets[row[0]], row[which]) for which in (1, 2) for row in rows]  # first views, then second ones
        views = [training_view(folder.image(index), resolution, rng) for folder, index in photos]
        pixels, depth, intrinsics = (
            torch.from_numpy(np.stack([getattr(view, name) for view in views])).to(device)
            for name in ("image", "depth", "intrinsics")
        )
        poses = torch.stack([folder.world_from_camera(index) for folder, index in photos]).to(device)
        images = augment(pixels.permute(0, 3, 1, 2).float() / 255, generator, strength)
        first = torch.arange(len(rows), device=device)
        count = min(self._correspondences, resolution[0] * resolution[1] // 8)
        return pair_batch(images, depth, intrinsics, poses, first, first + len(rows), count, generator)


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
