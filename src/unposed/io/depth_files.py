"""Depth maps as files: 16-bit PNG with its unit in a JSON beside it, and NPZ with everything."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.io.atomic import atomic_write
from unposed.views import View

_MILLIMETRE = 0.001
_HIGHEST = 65535


def write_depth(
    stem: str | Path,
    depth: Float[Tensor, "height width"],
    intrinsics: Float[Tensor, "3 3"],
    confidence: Float[Tensor, "height width"] | None = None,
    *,
    metric: bool = False,
) -> list[Path]:
    """Write ``<stem>_depth.png``, ``<stem>_depth.json`` and ``<stem>_depth.npz``; returns their paths.

    PNG: depth along z = value * ``unit`` of the JSON; 0 is unknown. The unit is a millimetre for metric depth up to 65
    metres, else the largest depth / 65535. NPZ: ``depth`` (float32, 0 unknown), ``confidence`` (where there is one),
    ``intrinsics`` (3x3, pixel (0, 0) is the centre of the top-left pixel) and ``metric``.

    Raises:
        UserError: the place cannot be written.
    """
    stem = Path(stem)
    png, description, npz = (stem.with_name(f"{stem.name}_depth.{suffix}") for suffix in ("png", "json", "npz"))
    known = torch.where(depth.isfinite() & (depth > 0), depth, 0.0).numpy().astype(np.float32)
    highest = float(known.max(initial=0.0))
    unit = _MILLIMETRE if metric and highest <= _HIGHEST * _MILLIMETRE else max(highest, 1e-12) / _HIGHEST
    values = np.where(known > 0, np.clip(np.rint(known / unit), 1, _HIGHEST), 0).astype(np.uint16)
    encoded = cv2.imencode(".png", values)[1]
    with atomic_write(png) as path:
        path.write_bytes(encoded.tobytes())
    facts = {"unit": unit, "metric": metric, "unknown": 0, "intrinsics": intrinsics.tolist()}
    with atomic_write(description) as path:
        path.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    arrays: dict[str, Any] = {"depth": known, "intrinsics": intrinsics.numpy(), "metric": np.array(metric)}
    if confidence is not None:
        arrays["confidence"] = confidence.numpy()
    with atomic_write(npz) as path:
        np.savez_compressed(path, **arrays)
    return [png, description, npz]


def at_original_size(
    values: Float[Tensor, "height width"], view: View
) -> Float[Tensor, "original_height original_width"]:
    """A map of the view's pixels at the original photo's pixels, nearest neighbour; 0 where the view was cropped."""
    view_from_original = torch.linalg.inv(view.original_from_view)[:2].numpy()
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return torch.from_numpy(cv2.warpAffine(values.numpy(), view_from_original, view.original_size, flags=flags))
