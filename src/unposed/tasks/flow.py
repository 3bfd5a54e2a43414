"""Optical flow: where every pixel of one photo is in another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from unposed.io.atomic import atomic_write
from unposed.io.flow_colours import flow_colours
from unposed.io.flow_files import FLOW_WRITERS
from unposed.models.flow import FlowModel
from unposed.models.flow_registry import load_flow_model
from unposed.tasks.inputs import PhotoLike, as_photo
from unposed.tasks.pictures import check_suffix, load_alike

SUFFIXES = (".npz", *FLOW_WRITERS)
"""Kinds of files that a result can be saved as."""
SURE = 0.5
"""Confidence from which a pixel counts as known in the summary: an expected error of one pixel."""


@dataclass(frozen=True, eq=False)
class Flow:
    """Where every pixel of photo a is in photo b, at a's own size."""

    flow: Float[Tensor, "height width 2"]
    """x, then y, in pixels: pixel p of photo a is p + flow of photo b."""
    confidence: Float[Tensor, "height width"]
    """1 / (1 + e) with e the error in pixels that the model expects of itself; near 0 where b lacks the point."""
    model: str
    """Name of the model."""

    def colours(self) -> UInt8[Tensor, "height width 3"]:
        """The colour wheel: direction is hue, length saturation, white does not move."""
        return flow_colours(self.flow)

    def save(self, path: str | Path) -> None:
        """Write everything as .npz, or the flow alone as .flo (Middlebury) or 16-bit .png (KITTI).

        Raises:
            UserError: another suffix, flow that the format cannot hold, or a place that cannot be written.
        """
        suffix = check_suffix(path, SUFFIXES)
        if suffix != ".npz":
            FLOW_WRITERS[suffix](path, self.flow)
            return
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, flow=self.flow.numpy(), confidence=self.confidence.numpy())


def flow(
    a: PhotoLike,
    b: PhotoLike,
    *,
    model: str | Path | FlowModel = "auto",
    device: str = "auto",
) -> Flow:
    """Optical flow from photo a to photo b.

    Args:
        a, b: files, Pillow pictures or arrays height x width x 3 of uint8, of one size: frames of a video, say.
        model: ``classic`` (dense inverse search; what ``auto`` means), the path of a released CroCo-Flow file, or a
            loaded model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        UserError: a photo or model that cannot be used, or photos of different sizes.
    """
    pictures = load_alike(as_photo(a, "a.png"), as_photo(b, "b.png"), "Flow")
    loaded = load_flow_model(model, device) if isinstance(model, str | Path) else model
    ((_, found),) = loaded.estimate_flow(pictures, [(0, 1)])
    return Flow(found.flow, found.confidence, loaded.name)


def summary(result: Flow, files: list[Path]) -> dict[str, Any]:
    """The result as plain values, for a person or a script."""
    height, width = result.confidence.shape
    length = result.flow.norm(dim=-1)
    return {
        "model": result.model,
        "width": width,
        "height": height,
        "sure": round(float((result.confidence >= SURE).float().mean()), 4),
        "median_flow": round(float(length.median()), 3),
        "largest_flow": round(float(length.max()), 3),
        "files": [str(path) for path in files],
    }
