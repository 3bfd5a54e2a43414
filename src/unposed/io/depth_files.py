"""Depth maps as files: 16-bit PNG with its unit in a JSON beside it, and NPZ with everything."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unposed.io.atomic import atomic_write
from unposed.views import View

SAME_SURFACE = 1.04
"""Neighbouring pixels whose depths differ by no more than this factor are taken for one surface."""
_MILLIMETRE = 0.001
_HIGHEST = 65535
_RANGE_PIXELS = 200_000


def write_depth(
    stem: str | Path,
    depth: Float[Tensor, "height width"],
    intrinsics: Float[Tensor, "3 3"],
    confidence: Float[Tensor, "height width"] | None = None,
    *,
    metric: bool = False,
) -> list[Path]:
    """Write ``<stem>_depth.png``, ``<stem>_depth.json`` and ``<stem>_depth.npz``; returns their paths.

    Raises:
        UserError: the place cannot be written.
    """
    stem = Path(stem)
    png, npz = (stem.with_name(f"{stem.name}_depth.{suffix}") for suffix in ("png", "npz"))
    write_depth_npz(npz, depth, intrinsics, confidence, metric=metric)
    return [*write_depth_png(png, depth, intrinsics, metric=metric), npz]


def write_depth_npz(
    path: str | Path,
    depth: Float[Tensor, "height width"],
    intrinsics: Float[Tensor, "3 3"],
    confidence: Float[Tensor, "height width"] | None = None,
    normals: Float[Tensor, "height width 3"] | None = None,
    *,
    metric: bool = False,
) -> None:
    """``depth`` (float32, 0 unknown), ``intrinsics`` (3x3), ``metric``, and where there are such ``confidence`` and
    ``normals`` (float16, in the camera frame, 0 unknown).

    In the intrinsics pixel (0, 0) is the centre of the top-left pixel.

    Raises:
        UserError: the place cannot be written.
    """
    arrays: dict[str, Any] = {"depth": _known(depth), "intrinsics": intrinsics.numpy(), "metric": np.array(metric)}
    if confidence is not None:
        arrays["confidence"] = confidence.numpy()
    if normals is not None:
        arrays["normals"] = normals.numpy().astype(np.float16)
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def write_depth_png(
    path: str | Path, depth: Float[Tensor, "height width"], intrinsics: Float[Tensor, "3 3"], *, metric: bool = False
) -> list[Path]:
    """A 16-bit PNG and, beside it, a JSON that says what its values mean; returns the paths of both.

    Depth along z = value * ``unit`` of the JSON; 0 is unknown. The unit is a millimetre for metric depth up to 65
    metres, else the largest depth / 65535.

    Raises:
        UserError: the place cannot be written.
    """
    path = Path(path)
    known = _known(depth)
    highest = float(known.max(initial=0.0))
    unit = _MILLIMETRE if metric and highest <= _HIGHEST * _MILLIMETRE else max(highest, 1e-12) / _HIGHEST
    values = np.where(known > 0, np.clip(np.rint(known / unit), 1, _HIGHEST), 0).astype(np.uint16)
    encoded = cv2.imencode(".png", values)[1]
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
    facts = {"unit": unit, "metric": metric, "unknown": 0, "intrinsics": intrinsics.tolist()}
    description = path.with_suffix(".json")
    with atomic_write(description) as temporary:
        temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return [path, description]


def _known(depth: Float[Tensor, "height width"]) -> np.ndarray:
    """Depth as float32 with 0 for everything that is no depth."""
    return torch.where(depth.isfinite() & (depth > 0), depth, 0.0).numpy().astype(np.float32)


def at_original_size(
    values: Float[Tensor, "height width"], view: View
) -> Float[Tensor, "original_height original_width"]:
    """A map of the view's pixels at the original photo's pixels, nearest neighbour; 0 where the view was cropped."""
    return _warp(values, view, cv2.INTER_NEAREST)


def depth_at_original_size(
    depth: Float[Tensor, "height width"], view: View
) -> Float[Tensor, "original_height original_width"]:
    """Depth of the view's pixels at the original photo's pixels; 0 where unknown or where the view was cropped.

    Between four pixels of one surface inverse depth is interpolated, which keeps planes plane. Where the four differ by
    more than ``SAME_SURFACE``, or one is unknown, the nearest one counts: no depth is made up between two surfaces.
    """
    nearest = at_original_size(depth, view)
    known = depth > 0
    inverse = torch.where(known, 1 / depth, 0.0)
    blended = _warp(inverse, view, cv2.INTER_LINEAR, border=cv2.BORDER_REPLICATE)
    corners = torch.nn.functional.pad(inverse[None, None], (0, 1, 0, 1), "replicate")
    highest, lowest = (sign * torch.nn.functional.max_pool2d(sign * corners, 2, 1)[0, 0] for sign in (1, -1))
    one_surface = ((lowest > 0) & (highest <= SAME_SURFACE * lowest)).float()
    smooth = _warp(one_surface, view, cv2.INTER_NEAREST, border=cv2.BORDER_REPLICATE, corner=0.5) > 0
    return torch.where(smooth & (nearest > 0), 1 / blended, nearest)


def normals_at_original_size(
    normals: Float[Tensor, "height width 3"], view: View
) -> Float[Tensor, "original_height original_width 3"]:
    """Unit normals of the view at the original photo's pixels; 0 where unknown or where the view was cropped."""
    warped = _warp(normals, view, cv2.INTER_LINEAR)
    length = warped.norm(dim=-1, keepdim=True)
    return torch.where(length > 0.5, warped / length, 0.0)


def normal_colours(normals: Float[Tensor, "height width 3"]) -> UInt8[Tensor, "height width 3"]:
    """Normals in the usual colours, (x, -y, -z) from -1 .. 1 to 0 .. 255; unknown ones black."""
    colours = (normals * torch.tensor([0.5, -0.5, -0.5]) + 0.5).mul(255).round().clamp(0, 255).to(torch.uint8)
    return colours.masked_fill_((normals == 0).all(-1, keepdim=True), 0)


def _warp(
    values: Float[Tensor, "height width *channels"],
    view: View,
    interpolation: int,
    border: int = cv2.BORDER_CONSTANT,
    corner: float = 0.0,
) -> Float[Tensor, "original_height original_width *channels"]:
    """A map of the view at the original photo's pixels; value (x, y) lies at view pixel (x + corner, y + corner)."""
    values_from_original = torch.linalg.inv(view.original_from_view.double())[:2].numpy().copy()
    values_from_original[:, 2] -= corner
    flags = interpolation | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(values.numpy(), values_from_original, view.original_size, flags=flags, borderMode=border)
    return torch.from_numpy(warped)


def depth_range(maps: Sequence[Float[Tensor, "height width"]]) -> tuple[float, float]:
    """Nearest and farthest depth worth a colour of their own: the 2nd and 98th percentile of all known pixels."""
    known = [values[values > 0] for values in maps]
    known = [values[:: max(1, len(values) * len(maps) // _RANGE_PIXELS)] for values in known]
    together = torch.cat(known)
    if len(together) == 0:
        return 1.0, 1.0
    return float(together.quantile(0.02)), float(together.quantile(0.98))


def depth_colours(
    depth: Float[Tensor, "height width"], between: tuple[float, float] | None = None
) -> UInt8[Tensor, "height width 3"]:
    """Inverse depth in false colours (near is red, far is blue), unknown depth black.

    The colours span the depths ``between``, by default the ``depth_range`` of this map.
    """
    near, far = between or depth_range([depth])
    known = depth > 0
    inverse = torch.where(known, 1 / depth.clamp(min=1e-12), 0.0)
    grey = ((inverse - 1 / far) / max(1 / near - 1 / far, 1e-12)).clamp(0, 1).mul(255).to(torch.uint8)
    picture = cv2.cvtColor(cv2.applyColorMap(grey.numpy(), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(picture).masked_fill_(~known[..., None], 0)


def unique_stems(names: Sequence[str]) -> list[str]:
    """A name without its suffix for every file of a set; the full one where two would be the same.

    ``a.jpg`` and ``a.png`` stay ``a.jpg`` and ``a.png``; names that differ only by case count as the same, since some
    disks do not tell them apart, and get a number.
    """
    stems = [str(PurePosixPath(name).with_suffix("")) for name in names]
    counts = Counter(stem.casefold() for stem in stems)
    chosen = [stem if counts[stem.casefold()] == 1 else name for name, stem in zip(names, stems, strict=True)]
    taken: set[str] = set()
    for k, stem in enumerate(chosen):
        number = 1
        while chosen[k].casefold() in taken:
            number += 1
            chosen[k] = f"{stem}_{number}"
        taken.add(chosen[k].casefold())
    return chosen
