"""A user's photos with cameras and depth in a ``gt.json``, as ``unposed synth`` writes it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unposed.errors import UserError
from unposed.geometry.transforms import invert_rigid
from unposed.train.datasets.base import TrainingView
from unposed.train.datasets.files import view
from unposed.train.matching import covisible_pixels

_THINNED = 32
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

    def __len__(self) -> int:
        return len(self._rows)

    def view(self, index: int) -> TrainingView:
        """One photo with its depth and camera."""
        row = self._rows[index]
        try:
            depth = self._depth(row.facts)
            f = row.facts
            k = np.array([[f["fx"], 0, f["cx"]], [0, f["fy"], f["cy"]], [0, 0, 1]], np.float32)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.folder / row.name}: its depth or camera cannot be read ({error}).") from error
        label = f"photos/{self.folder.name}"
        return view(self.folder / row.name, depth, k, self.world_from_camera(index).numpy(), label)

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

    def pairs(self, least_overlap: float) -> list[tuple[int, int]]:
        """Ordered pairs (i, j) of different photos where j sees at least this share of the known pixels of i."""
        thinned = [self._thinned(i) for i in range(len(self))]
        depth = _padded([depth for depth, _ in thinned])
        intrinsics = torch.stack([k for _, k in thinned])
        poses = torch.stack([self.world_from_camera(i) for i in range(len(self))])
        found = []
        for i in range(len(self)):
            every_from_i = invert_rigid(poses) @ poses[i]
            own, k = depth[i].expand_as(depth), intrinsics[i].expand_as(intrinsics)
            _, seen = covisible_pixels(own, depth, k, intrinsics, every_from_i, tolerance=0.1)
            enough = seen.sum(1) >= least_overlap * (depth[i] > 0).sum().clamp(min=1)
            found += [(i, j) for j in enough.nonzero()[:, 0].tolist() if j != i]
        return found

    def _thinned(self, index: int) -> tuple[Float[Tensor, "h w"], Float[Tensor, "3 3"]]:
        photo = self.view(index).photo
        step = max(1, photo.size[0] // _THINNED)
        scale = torch.tensor([step, step, 1.0])[:, None]
        return torch.from_numpy(photo.depth[::step, ::step].copy()), torch.from_numpy(photo.intrinsics) / scale


def _padded(maps: list[Tensor]) -> Float[Tensor, "maps h w"]:
    """Maps of different sizes as one tensor; what is added is 0."""
    height, width = (max(m.shape[axis] for m in maps) for axis in (0, 1))
    padded = torch.zeros(len(maps), height, width)
    for k, m in enumerate(maps):
        padded[k, : m.shape[0], : m.shape[1]] = m
    return padded
