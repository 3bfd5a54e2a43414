"""Exact correspondences at no rendering cost: photos warped by random homographies, and colour augmentation.

Homographies of photos as training pairs: DeTone et al., "SuperPoint", CVPR workshops 2018, section 5.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from unposed.errors import UserError
from unposed.geometry.cameras import pixel_grid
from unposed.nets.convnet import gaussian_blur

PHOTO = 384
"""Side of the photos of a bank."""


@dataclass(frozen=True, eq=False)
class DensePairs:
    """Pairs of images with the exact place of every pixel of the first in the second."""

    images_a: Float[Tensor, "pairs 3 height width"]
    images_b: Float[Tensor, "pairs 3 height width"]
    flow: Float[Tensor, "pairs height width 2"]
    """Pixel (x, y) of b that shows what the pixel of a shows."""
    valid: Bool[Tensor, "pairs height width"]
    """Where that is so: inside b and not hidden."""


def held_out(name: str) -> bool:
    """Whether a photo belongs to the validation tenth; all crops of one photo fall on the same side."""
    return zlib.crc32(name.split("-crop")[0].encode()) % 10 == 0


def load_photos(folder: Path, validation: bool) -> UInt8[Tensor, "n 3 384 384"]:
    """The ``photo_*`` and halves of the ``pano_*`` images of a folder, squeezed to squares; one side of the split."""
    photos = []
    for path in sorted(folder.glob("*.jpg")):
        if not path.name.startswith(("photo_", "pano_")) or held_out(path.stem) != validation:
            continue
        with Image.open(path) as file:
            image = file.convert("RGB")
        if path.name.startswith("pano_"):
            half = image.width // 2
            halves = [image.crop((0, 0, half, image.height)), image.crop((half, 0, image.width, image.height))]
        else:
            halves = [image]
        photos += [np.asarray(part.resize((PHOTO, PHOTO), Image.Resampling.LANCZOS)) for part in halves]
    if not photos:
        raise UserError(f"No photo_*.jpg or pano_*.jpg in {folder}; name the folder with the training textures.")
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous()


def _uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def _matrix(rows: list[list[Tensor]]) -> Float[Tensor, "n 3 3"]:
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def random_homographies(
    count: int, side: int, strength: float, generator: torch.Generator
) -> Float[Tensor, "count 3 3"]:
    """Maps from pixels of b to pixels of a, both ``side`` squares: scale, rotation, stretch, shift, perspective.

    At strength 1: scale 1/2 to 2, rotation of 20 degrees standard deviation, perspective that changes the scale across
    the image by up to a factor of about two.
    """
    n = (count,)
    one, zero = torch.ones(n, device=generator.device), torch.zeros(n, device=generator.device)
    scale = torch.exp(strength * _uniform(-0.69, 0.69, n, generator))
    stretch = torch.exp(strength * _uniform(-0.25, 0.25, n, generator))
    angle = strength * 0.35 * torch.randn(n, generator=generator, device=generator.device)
    skew = strength * _uniform(-0.2, 0.2, n, generator)
    cos, sin = angle.cos(), angle.sin()
    linear = _matrix([[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]])
    linear = linear @ _matrix([[scale * stretch, skew, zero], [zero, scale / stretch, zero], [zero, zero, one]])
    tilt_x, tilt_y = (strength * _uniform(-0.35, 0.35, n, generator) * 2 / side for _ in range(2))
    tilt = _matrix([[one, zero, zero], [zero, one, zero], [tilt_x, tilt_y, one]])
    shift_x, shift_y = (strength * _uniform(-0.25, 0.25, n, generator) * side for _ in range(2))
    centre = one * (side - 1) / 2
    to_centre = _matrix([[one, zero, -centre], [zero, one, -centre], [zero, zero, one]])
    back = _matrix([[one, zero, centre + shift_x], [zero, one, centre + shift_y], [zero, zero, one]])
    return back @ linear @ tilt @ to_centre


def _apply(homographies: Float[Tensor, "n 3 3"], pixels: Float[Tensor, "height width 2"]) -> tuple[Tensor, Tensor]:
    """Mapped pixels (n, height, width, 2) and where they lie in front of the horizon (n, height, width)."""
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1).reshape(-1, 3)
    mapped = (homogeneous @ homographies.transpose(1, 2)).reshape(-1, *pixels.shape[:2], 3)
    depth = mapped[..., 2:]
    return mapped[..., :2] / depth.clamp(min=1e-3), depth[..., 0] > 0.1


def _crop(photos: Tensor, photo_from_pixel: Tensor, side: int) -> Tensor:
    """Photos (n, 3, 384, 384) in [0, 1] through homographies; averaged over 2 x 2 samples a pixel."""
    fine = (pixel_grid(2 * side, 2 * side, photos.device) + 0.5) / 2 - 0.5
    source, _ = _apply(photo_from_pixel, fine)
    grid = (2 * source + 1) / PHOTO - 1
    return F.avg_pool2d(F.grid_sample(photos, grid, "bilinear", "reflection", align_corners=False), 2)


def homography_pairs(
    photos: UInt8[Tensor, "n 3 384 384"], count: int, side: int, strength: float, generator: torch.Generator
) -> DensePairs:
    """``count`` pairs of ``side`` x ``side`` windows of photos, the second seen through a random homography."""
    chosen = torch.randint(len(photos), (count,), generator=generator, device=generator.device)
    sources = photos[chosen].float() / 255
    zoom = torch.exp(_uniform(-0.9, 0.0, (count,), generator)) * PHOTO / side
    mirrored = torch.where(_uniform(0, 1, (count,), generator) < 0.5, -zoom, zoom)
    slack = (PHOTO - zoom * side) / 2
    x, y = (PHOTO / 2 + slack * _uniform(-1, 1, (count,), generator) for _ in range(2))
    zero, one = torch.zeros_like(zoom), torch.ones_like(zoom)
    middle = (side - 1) / 2
    photo_from_a = _matrix(
        [[mirrored, zero, x - mirrored * middle], [zero, zoom, y - zoom * middle], [zero, zero, one]]
    )
    a_from_b = random_homographies(count, side, strength, generator)
    pixels = pixel_grid(side, side, photos.device)
    flow, front = _apply(torch.linalg.inv(a_from_b), pixels)
    source, _ = _apply(photo_from_a, pixels)
    inside_photo = ((source >= 0) & (source <= PHOTO - 1)).all(-1)
    inside_b = ((flow >= 0) & (flow <= side - 1)).all(-1)
    images_a, images_b = _crop(sources, photo_from_a, side), _crop(sources, photo_from_a @ a_from_b, side)
    return DensePairs(images_a, images_b, flow, front & inside_b & inside_photo)


def photometric(
    images: Float[Tensor, "n 3 height width"], strength: float, generator: torch.Generator
) -> Float[Tensor, "n 3 height width"]:
    """Exposure, white balance, gamma, contrast, saturation, uneven light, blur and noise, drawn for every image."""
    n = len(images)
    each = (n, 1, 1, 1)

    def spread(amount: float, shape: tuple[int, ...] = each) -> Tensor:
        return torch.exp(strength * _uniform(-amount, amount, shape, generator))

    light = torch.randn((n, 1, 4, 4), generator=generator, device=images.device) * 0.25 * strength
    light = F.interpolate(light, size=images.shape[-2:], mode="bicubic", align_corners=False).exp()
    images = images.clamp(min=1e-4) ** spread(0.4) * (light * spread(0.35) * spread(0.12, (n, 3, 1, 1)))
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * spread(0.35)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (1 - strength * _uniform(-0.3, 1, each, generator).clamp(min=-0.3))
    soft = _uniform(-1.0, 1.0, each, generator).clamp(min=0) * strength
    images = images + soft * (gaussian_blur(images, 1.4) - images)
    sigma = 0.04 * strength * torch.rand(each, generator=generator, device=images.device)
    return (images + sigma * torch.randn(images.shape, generator=generator, device=images.device)).clamp(0, 1)
