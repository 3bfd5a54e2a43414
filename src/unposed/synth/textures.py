"""Textures as one flat buffer of prefiltered texels: photos from a folder, or procedural patterns without any file.

Every texture has power-of-two sides and a mip chain; levels lie one after the other, so that a lookup is four row
reads at a computed address, whatever the size of the texture. Colours are 8 bit, display-encoded, as in the files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from unposed.errors import UserError

Split = Literal["train", "validation"]
_HELD_OUT = 0.1  # share of the files kept for validation


@dataclass(frozen=True, eq=False)
class Textures:
    """A set of textures on one device: first tiles (seamless), then photos, then skies."""

    texels: UInt8[Tensor, "texels 3"]
    """RGB of all mip levels of all textures."""
    table: Int[Tensor, "textures 3"]
    """int32 per texture: first texel, width, height (powers of two)."""
    tiles: int
    """Number of seamless tiles: textures 0 ... tiles - 1."""
    photos: int
    """Number of photos: the next ones; never seamless."""
    skies: int
    """Number of equirectangular panoramas: the last ones; top row is up."""

    def to(self, device: torch.device | str) -> "Textures":
        """The same textures on another device."""
        return Textures(self.texels.to(device), self.table.to(device), self.tiles, self.photos, self.skies)


def load_textures(
    directory: Path, device: torch.device | str = "cpu", split: Split = "train", seed: int = 0
) -> Textures:
    """Read a folder of ``tile_*``, ``photo_*`` and ``pano_*`` images; a random tenth is held out for validation.

    The split depends on ``seed`` and the file names alone. Procedural tiles are added to the tiles of the folder, so
    that both kinds occur; a folder without panoramas gets procedural skies.

    Raises:
        UserError: there is no such image, or one is damaged.
    """
    files = sorted(p for p in Path(directory).glob("*_*") if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
    chosen = {kind: [p for p in files if p.name.startswith(kind)] for kind in ("tile_", "photo_", "pano_")}
    if not any(chosen.values()):
        raise UserError(f"no textures in {directory}: give a folder with images named tile_*, photo_* or pano_*")
    order = np.random.default_rng(seed)
    for kind, paths in chosen.items():
        held_out = order.random(len(paths)) < _HELD_OUT
        chosen[kind] = [p for p, out in zip(paths, held_out, strict=True) if out == (split == "validation")]
    patterns = procedural_tiles(48, seed=1 if split == "train" else 2)
    tiles = [*map(_read, chosen["tile_"]), *patterns]
    photos = list(map(_read, chosen["photo_"])) or patterns[:8]
    skies = list(map(_read, chosen["pano_"])) or procedural_skies(6, seed=3)
    return _pack(tiles, photos, skies).to(device)


@lru_cache(maxsize=4)
def procedural_textures(seed: int = 0, device: torch.device | str = "cpu") -> Textures:
    """Textures without any file: noise, stripes, checkers, bricks, blotches and flat colours; gradient skies."""
    return _pack(procedural_tiles(72, seed), procedural_tiles(24, seed + 1), procedural_skies(8, seed + 2)).to(device)


def sample(
    textures: Textures,
    index: Int[Tensor, "*pixels"],
    u: Float[Tensor, "*pixels"],
    v: Float[Tensor, "*pixels"],
    footprint_u: Float[Tensor, "*pixels"],
    footprint_v: Float[Tensor, "*pixels"],
    mirror: Bool[Tensor, "*pixels"],
) -> Float[Tensor, "*pixels 3"]:
    """Colours in [0, 1] at texture coordinates (one unit = one repeat), bilinear in the mip level of the footprint.

    ``footprint_*`` is the size of a pixel in texture coordinates; where ``mirror``, every other repeat is
    mirrored. Williams, Pyramidal parametrics, 1983.
    """
    start, width, height = textures.table.index_select(0, index.reshape(-1)).view(*index.shape, 3).unbind(-1)
    texels_per_pixel = torch.maximum(footprint_u * width, footprint_v * height).clamp(1, 4096)
    level = torch.minimum((texels_per_pixel.log2() + 0.35).to(torch.int32), _log2(torch.minimum(width, height)))
    w, h = width >> level, height >> level
    start = start + torch.div(4 * (width * height - w * h), 3, rounding_mode="trunc").to(torch.int32)
    x, y = _fold(u, mirror) * w - 0.5, _fold(v, mirror) * h - 0.5
    x0, y0 = x.floor(), y.floor()
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    left, top = x0.to(torch.int32), y0.to(torch.int32)
    left, right = _neighbours(left, w, mirror)
    top, bottom = (start + row * w for row in _neighbours(top, h, mirror))

    def texel(address: Tensor) -> Tensor:
        return textures.texels.index_select(0, address.reshape(-1)).view(*address.shape, 3).to(torch.float32)

    upper = torch.lerp(texel(top + left), texel(top + right), fx)
    lower = torch.lerp(texel(bottom + left), texel(bottom + right), fx)
    return torch.lerp(upper, lower, fy) / 255


def _fold(coordinate: Tensor, mirror: Tensor) -> Tensor:
    """Texture coordinate brought to [0, 1]: repeated, or there and back."""
    there_and_back = 1 - (1 - (coordinate - 2 * (coordinate / 2).floor())).abs()
    return torch.where(mirror, there_and_back, coordinate - coordinate.floor())


def _neighbours(first: Tensor, size: Tensor, mirror: Tensor) -> tuple[Tensor, Tensor]:
    """A texel's number and the next one's: at the border the opposite side follows, or, mirrored, the same texel."""
    last = size - 1
    low = torch.where(mirror, first.clamp(min=0), first & last)
    return low, torch.where(mirror, torch.minimum(first + 1, last), (first + 1) & last)


def procedural_tiles(count: int, seed: int) -> list[np.ndarray]:
    """Seamless 128 x 128 RGB patterns; every fifth of its kind."""
    random = np.random.default_rng(seed)
    makers = (_noise, _noise, _stripes, _checker, _bricks, _blotches, _flat)
    return [_to_bytes(makers[i % len(makers)](random, 128)) for i in range(count)]


def procedural_skies(count: int, seed: int) -> list[np.ndarray]:
    """256 x 512 panoramas: a vertical gradient with clouds above, a ground tone below."""
    random = np.random.default_rng(seed)
    skies = []
    for _ in range(count):
        zenith = random.uniform([0.15, 0.3, 0.5], [0.5, 0.65, 0.95])
        horizon, ground = zenith * 0.4 + random.uniform(0.4, 0.6), random.uniform(0.1, 0.5, 3)
        height = np.linspace(1, -1, 256)[:, None, None]
        sky = horizon + (zenith - horizon) * np.clip(height, 0, 1) ** 0.6
        cloud = np.clip((_spectral(random, 256, 512, 1.7) - random.uniform(-0.3, 1.5)) * 0.6, 0, 1)[..., None]
        cloud = cloud * np.clip(height * 4, 0, 1)
        skies.append(_to_bytes(np.where(height > 0, sky + (0.95 - sky) * cloud, ground + 0.2 * (horizon - ground))))
    return skies


def _log2(power: Tensor) -> Tensor:
    return torch.log2(power.to(torch.float32)).to(torch.int32)


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image; remove it from the textures") from error
    else:
        width, height = (2 ** min(10, max(4, round(math.log2(side)))) for side in rgb.size)
        return np.asarray(rgb.resize((width, height), Image.Resampling.LANCZOS))


def _to_bytes(rgb: np.ndarray) -> np.ndarray:
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)


def _pack(tiles: Sequence[np.ndarray], photos: Sequence[np.ndarray], skies: Sequence[np.ndarray]) -> Textures:
    texels, rows, start = [], [], 0
    for image in [*tiles, *photos, *skies]:
        height, width = image.shape[:2]
        rows.append((start, width, height))
        level = torch.from_numpy(image.copy()).permute(2, 0, 1).to(torch.float32)
        while True:
            chunk = level.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).reshape(-1, 3)
            texels.append(chunk)
            start += len(chunk)
            if min(level.shape[1:]) == 1:
                break
            level = F.avg_pool2d(level, 2)
    table = torch.tensor(rows, dtype=torch.int32)
    return Textures(torch.cat(texels), table, len(tiles), len(photos), len(skies))


def _spectral(random: np.random.Generator, height: int, width: int, slope: float) -> np.ndarray:
    """Seamless Gaussian noise of unit variance whose amplitude falls as frequency ** -slope."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    spectrum = np.fft.rfft2(random.standard_normal((height, width))) / np.maximum(frequency, 1) ** slope
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (height, width))
    return noise / noise.std()


def _colours(random: np.random.Generator, count: int) -> np.ndarray:
    """Colours of moderate saturation around a common tone, ``(count, 3)``."""
    grey = random.uniform(0.1, 0.9, (count, 1))
    return np.clip(grey + random.normal(0, 0.15, (count, 3)), 0.03, 0.97)


def _grain(random: np.random.Generator, size: int) -> np.ndarray:
    return 1 + random.uniform(0.02, 0.1) * _spectral(random, size, size, random.uniform(0.2, 1.2))[..., None]


def _noise(random: np.random.Generator, size: int) -> np.ndarray:
    a, b, c = _colours(random, 3)
    first, second = (_spectral(random, size, size, random.uniform(0.6, 1.6))[..., None] for _ in range(2))
    blend = 1 / (1 + np.exp(-2 * first))
    return (a + (b - a) * blend + (c - a) * 0.2 * second) * _grain(random, size)


def _stripes(random: np.random.Generator, size: int) -> np.ndarray:
    colours = _colours(random, 4)
    edges = np.sort(random.integers(0, size, random.integers(2, 12)))
    band = np.searchsorted(edges, np.arange(size), side="right") % len(edges)
    rows = colours[band % 4]
    image = np.broadcast_to(rows[None], (size, size, 3)) * _grain(random, size)
    return image if random.random() < 0.5 else image.transpose(1, 0, 2)


def _checker(random: np.random.Generator, size: int) -> np.ndarray:
    cells = 2 ** random.integers(1, 4)
    values = random.uniform(0.6, 1.2, (cells, cells))
    y, x = np.mgrid[:size, :size] * cells // size
    a, b = _colours(random, 2)
    return np.where(((x + y) % 2 == 0)[..., None], a, b) * values[y, x, None] * _grain(random, size)


def _bricks(random: np.random.Generator, size: int) -> np.ndarray:
    rows, columns = 2 ** random.integers(2, 4), 2 ** random.integers(1, 3)
    y, x = np.mgrid[:size, :size]
    row = y * rows // size
    shifted = (x + (row % 2) * (size // columns // 2)) % size
    joint = (y % (size // rows) < 2) | (shifted % (size // columns) < 2)
    tone = random.uniform(0.7, 1.25, (rows, columns))[row, shifted * columns // size]
    brick, mortar = _colours(random, 2)
    return np.where(joint[..., None], mortar, brick * tone[..., None]) * _grain(random, size)


def _blotches(random: np.random.Generator, size: int) -> np.ndarray:
    """Rectangles and discs of all sizes over each other, wrapped at the border: corners and edges without repeats."""
    image = np.ones((size, size, 3)) * _colours(random, 1)
    y, x = np.mgrid[:size, :size]
    for colour in _colours(random, int(random.integers(12, 60))):
        cx, cy = random.integers(0, size, 2)
        dx, dy = (x - cx + size // 2) % size - size // 2, (y - cy + size // 2) % size - size // 2
        rx, ry = 2 + random.exponential(12, 2)
        inside = (abs(dx) < rx) & (abs(dy) < ry) if random.random() < 0.6 else np.hypot(dx / rx, dy / ry) < 1
        image = np.where(inside[..., None], colour, image)
    return image * _grain(random, size)


def _flat(random: np.random.Generator, size: int) -> np.ndarray:
    return np.ones((size, size, 3)) * _colours(random, 1) * _grain(random, size)
