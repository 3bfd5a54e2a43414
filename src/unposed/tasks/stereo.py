"""Disparity and depth from the two photos of a rectified stereo camera."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unposed.errors import UserError
from unposed.io.atomic import atomic_write
from unposed.io.flow_colours import disparity_colours
from unposed.io.flow_files import DISPARITY_WRITERS
from unposed.models.flow import StereoModel
from unposed.models.flow_registry import load_stereo_model
from unposed.models.rectified import match_rows
from unposed.tasks.inputs import PhotoLike, as_photo
from unposed.tasks.pictures import check_suffix, load_alike
from unposed.tasks.progress import Reporter, Silent

SUFFIXES = (".npz", *DISPARITY_WRITERS)
"""Kinds of files that a result can be saved as."""


@dataclass(frozen=True, eq=False)
class Stereo:
    """What two rectified photos tell of every pixel of the left one, at its own size."""

    disparity: Float[Tensor, "height width"]
    """Pixels, positive: (x, y) of the left photo is (x - disparity, y) of the right one; 0 where unknown."""
    confidence: Float[Tensor, "height width"]
    """1 / (1 + e) with e the error in pixels that the model expects of itself; 0 where it knows nothing."""
    depth: Float[Tensor, "height width"] | None
    """Along the camera's z axis in the unit of the baseline, 0 where unknown; None without focal and baseline."""
    model: str
    """Name of the model."""

    def colours(self) -> UInt8[Tensor, "height width 3"]:
        """Disparity in false colours, near red and far blue, unknown black."""
        return disparity_colours(self.disparity)

    def save(self, path: str | Path) -> None:
        """Write everything as .npz, or the disparity alone as .pfm (Middlebury) or 16-bit .png (KITTI).

        Raises:
            UserError: another suffix, disparities that the format cannot hold, or a place that cannot be written.
        """
        suffix = check_suffix(path, SUFFIXES)
        if suffix != ".npz":
            DISPARITY_WRITERS[suffix](path, self.disparity)
            return
        arrays: dict[str, Any] = {"disparity": self.disparity.numpy(), "confidence": self.confidence.numpy()}
        if self.depth is not None:
            arrays["depth"] = self.depth.numpy()
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, **arrays)


def stereo(
    left: PhotoLike,
    right: PhotoLike,
    *,
    model: str | Path | StereoModel = "auto",
    focal: float | None = None,
    baseline: float | None = None,
    doffs: float = 0.0,
    largest: float | None = None,
    device: str = "auto",
    report: Reporter | None = None,
) -> Stereo:
    """Disparity of the left photo of a rectified pair, and its depth where the camera is known.

    Args:
        left, right: files, Pillow pictures or arrays height x width x 3 of uint8, of one size; a point of the scene
            lies in the same row of both.
        model: ``classic`` (semi-global matching; what ``auto`` means), the path of a released CroCo-Stereo file, or a
            loaded model.
        focal: focal length of both photos in pixels of theirs.
        baseline: distance between the two cameras; depth comes out in its unit.
        doffs: column of the right photo's principal point less that of the left one's, as Middlebury gives it:
            depth = focal * baseline / (disparity + doffs).
        largest: the largest disparity to look for, in pixels; by default what matches of the two photos tell.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        report: where warnings go; nowhere by default.

    Raises:
        UserError: a photo, model or number that cannot be used; photos of different sizes, swapped, or not rectified;
            photos without any disparity.
    """
    report = report or Silent()
    _check_camera(focal, baseline, doffs)
    if largest is not None and not 0 < largest < math.inf:
        raise UserError(f"a largest disparity of {largest} pixels is impossible: give a positive number.")
    photos = [as_photo(left, "left.png"), as_photo(right, "right.png")]
    pictures = load_alike(photos[0], photos[1], "A rectified pair")
    loaded = load_stereo_model(model, device) if isinstance(model, str | Path) else model
    rows = match_rows(*pictures)
    if not rows.enough:
        report.say("too few points match to tell whether the photos are rectified")
    if not rows.rectified:
        raise UserError(
            f"The photos are not rectified: matching points lie {rows.typical_offset:.0f} rows apart; rectify the "
            "pair first, or use `unposed depth` for photos of a camera that moved freely."
        )
    if rows.swapped:
        raise UserError(
            "The photos are swapped: everything lies further right in the second one; give the left one first."
        )
    largest = min(largest or rows.largest_disparity, pictures[0].shape[1] - 1)
    report.say(f"{loaded.name}: disparities up to {largest:.0f} pixels")
    found = loaded.estimate_disparity(pictures[0], pictures[1], largest)
    if not (found.disparity > 0).any():
        raise UserError(
            f"{loaded.name} found no disparity at all: give two photos of one scene from places side by side."
        )
    depth = None
    if focal is not None and baseline is not None:
        depth = depth_from_disparity(found.disparity, focal, baseline, doffs)
    return Stereo(found.disparity, found.confidence, depth, loaded.name)


def depth_from_disparity(
    disparity: Float[Tensor, "height width"], focal: float, baseline: float, doffs: float = 0.0
) -> Float[Tensor, "height width"]:
    """Depth in the unit of ``baseline``; 0 where disparity is unknown or the point would lie behind the camera."""
    total = disparity + doffs
    return torch.where((disparity > 0) & (total > 0), focal * baseline / total, 0.0)


def summary(result: Stereo, files: list[Path]) -> dict[str, Any]:
    """The result as plain values, for a person or a script."""
    known = result.disparity[result.disparity > 0]
    height, width = result.disparity.shape
    facts: dict[str, Any] = {
        "model": result.model,
        "width": width,
        "height": height,
        "known": round(len(known) / result.disparity.numel(), 4),
        "median_disparity": round(float(known.median()), 3),
        "largest_disparity": round(float(known.max()), 3),
    }
    if result.depth is not None and (result.depth > 0).any():
        facts["median_depth"] = float(f"{float(result.depth[result.depth > 0].median()):.5g}")
    return facts | {"files": [str(path) for path in files]}


def _check_camera(focal: float | None, baseline: float | None, doffs: float) -> None:
    if (focal is None) != (baseline is None):
        raise UserError("depth needs the focal length and the baseline: give both, or neither.")
    for name, value in (("focal length", focal), ("baseline", baseline)):
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"a {name} of {value} is impossible: give a positive number.")
    if not math.isfinite(doffs) or (doffs and focal is None):
        raise UserError("doffs is a number of pixels that goes with a focal length and a baseline: give those, too.")
