"""A folder of photos of a place that does not exist, with its perfect ground truth: for tests, demos and benchmarks."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unposed.errors import UserError
from unposed.geometry.transforms import invert_rigid
from unposed.io.atomic import atomic_directory
from unposed.synth import RenderedViews, load_textures, procedural_textures
from unposed.synth.layouts import KINDS
from unposed.synth.tour import render_tour

_DEPTH_UNITS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005)  # metres; 16 bits reach from 6.5 to 328 m


@dataclass(frozen=True)
class SynthSummary:
    """What was written."""

    out: Path
    photos: int
    kind: str
    width: int
    height: int
    focal: float
    """Pixels."""
    nearest: float
    """Smallest depth in metres."""
    farthest: float
    """Largest depth in metres."""


def synthesize(
    out: Path,
    photos: int = 10,
    kind: str = "tabletop",
    seed: int = 0,
    width: int = 640,
    height: int = 480,
    textures: Path | None = None,
    quality: int = 90,
) -> SynthSummary:
    """Render photos of a procedural scene into a folder, with cameras and depth.

    Writes ``000.jpg`` ..., ``000_depth.png`` ... (16 bit, metres = value * ``depth_scale``, 0 where there is sky) and
    ``gt.json``: per image ``width height fx fy cx cy`` (pixel (0, 0) is the centre of the top-left pixel) and
    ``world_to_camera`` (4x4, OpenCV axes, metres).

    Args:
        out: Folder to make; one that holds files is refused.
        photos: Number of photos, 12 degrees apart around the scene where they fit.
        kind: Kind of scene: room, tabletop, street, clutter, terrain, planes, thin or vista.
        seed: Another seed, another place.
        width: Pixels.
        height: Pixels.
        textures: Folder of ``tile_*``, ``photo_*`` and ``pano_*`` images; without it patterns are made up.
        quality: JPEG quality.

    Raises:
        UserError: unknown kind, impossible size or number, a folder that is not empty, or no textures in ``textures``.
    """
    out = Path(out)
    _check(out, photos, kind, width, height)
    images = procedural_textures() if textures is None else load_textures(textures)
    rendered = render_tour(seed, kind, photos, height, width, images)
    farthest = float(rendered.depth.max())
    unit = next((u for u in _DEPTH_UNITS if farthest < 65535 * u), _DEPTH_UNITS[-1])
    with atomic_directory(out, "gt.json") as folder:
        entries = {f"{i:03d}.jpg": _write_photo(folder, rendered, i, unit, quality) for i in range(photos)}
        truth = {
            "set": out.name,
            "kind": f"procedural scene ({kind}, seed {seed})",
            "licence": "rendered; the textures keep their own licences" if textures else "rendered; no restrictions",
            "source": "unposed synth",
            "how": "exact: ray-cast analytic primitives",
            "metric": True,
            "depth_scale": unit,
            "depth_invalid": 0,
            "pixel_convention": "OpenCV: centre of the top-left pixel is (0,0)",
            "pose_convention": "world_to_camera, 4x4, x right y down z forward (OpenCV)",
            "images": entries,
        }
        (folder / "gt.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")
    known = rendered.depth[rendered.depth > 0]
    focal = float(rendered.intrinsics[0, 0, 0, 0])
    return SynthSummary(out, photos, kind, width, height, focal, float(known.min()), farthest)


def _check(out: Path, photos: int, kind: str, width: int, height: int) -> None:
    if kind not in KINDS:
        raise UserError(f"there is no kind of scene called {kind}; choose one of {', '.join(KINDS)}")
    if not 1 <= photos <= 999:
        raise UserError(f"{photos} photos cannot be made; choose a number from 1 to 999")
    if not (32 <= width <= 8192 and 32 <= height <= 8192):
        raise UserError(f"{width} x {height} pixels cannot be rendered; choose sides from 32 to 8192")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; choose a new folder")


def _write_photo(folder: Path, rendered: RenderedViews, i: int, unit: float, quality: int) -> dict[str, object]:
    """Write photo and depth of view ``i``; its entry for gt.json."""
    image = (rendered.images[0, i].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(image).save(folder / f"{i:03d}.jpg", quality=quality)
    depth = np.clip(np.rint(rendered.depth[0, i].double().numpy() / unit), 0, 65535).astype(np.uint16)
    Image.fromarray(depth).save(folder / f"{i:03d}_depth.png")
    k = rendered.intrinsics[0, i].double()
    return {
        "width": image.shape[1],
        "height": image.shape[0],
        "fx": float(k[0, 0]),
        "fy": float(k[1, 1]),
        "cx": float(k[0, 2]),
        "cy": float(k[1, 2]),
        "world_to_camera": invert_rigid(rendered.world_from_camera[0, i].double()).tolist(),
        "depth": f"{i:03d}_depth.png",
        "depth_valid_fraction": round(float((depth > 0).mean()), 4),
    }
