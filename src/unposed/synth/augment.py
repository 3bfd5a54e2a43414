"""Photometric differences between photos of one place: exposure, colour, blur, noise, compression. Geometry stays."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def augment(
    images: Float[Tensor, "*batch 3 height width"], generator: torch.Generator, strength: float = 1.0
) -> Float[Tensor, "*batch 3 height width"]:
    """Change every image on its own; values stay in [0, 1].

    Args:
        images: Display-encoded RGB in [0, 1].
        generator: On the device of the images.
        strength: 0 leaves the images as they are; 1 is what differs between careless photographers.
    """
    flat = images.flatten(0, -4)
    count, device = len(flat), flat.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, 1, 1, generator=generator, device=device)

    def uniform() -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator, device=device)

    exposure = torch.exp(strength * (0.2 * normal(1) + 0.07 * normal(3)))
    gamma = torch.exp(strength * 0.15 * normal(1))
    image = (flat.clamp(1e-4, 1) ** gamma * exposure).clamp(0, 1)
    grey = image.mean(1, keepdim=True)
    image = grey + (image - grey) * torch.exp(strength * 0.2 * normal(1))
    image = _blur(image, strength * 1.2 * uniform() ** 3)
    image = torch.where(uniform() < 0.4 * strength, _compress(image, 0.02 + 0.1 * uniform() ** 2), image)
    noise = torch.randn(image.shape, generator=generator, device=device)
    return (image + strength * 0.04 * uniform() ** 2 * noise).clamp(0, 1).view(images.shape)


def _blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of radius 3, its own sigma (pixels, ``(n, 1, 1, 1)``) for every image."""
    offset = torch.arange(-3, 4, device=image.device, dtype=image.dtype)
    weight = torch.exp(-0.5 * (offset / sigma.clamp(min=0.05)) ** 2)
    weight = weight / weight.sum(-1, keepdim=True)
    height, width = image.shape[-2:]
    padded = F.pad(image, (3, 3, 3, 3), mode="replicate")
    rows = torch.stack([weight[..., i : i + 1] * padded[..., i : i + height, :] for i in range(7)]).sum(0)
    return torch.stack([weight[..., i : i + 1] * rows[..., i : i + width] for i in range(7)]).sum(0)


def _compress(image: Tensor, step: Tensor) -> Tensor:
    """What JPEG does: the DCT coefficients of 8 x 8 blocks rounded, high frequencies more coarsely; no chroma step."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % 8, 0, -height % 8), mode="replicate")
    index = torch.arange(8, device=image.device, dtype=image.dtype)
    basis = torch.cos(math.pi / 8 * (index + 0.5) * index[:, None]) * math.sqrt(2 / 8)
    basis[0] /= math.sqrt(2)
    blocks = padded.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-2, -3)
    coefficients = basis @ blocks @ basis.T
    table = step[..., None, None] * (1 + 0.5 * (index + index[:, None]))
    blocks = basis.T @ ((coefficients / table).round() * table) @ basis
    restored = blocks.transpose(-2, -3).flatten(-4, -3).flatten(-2, -1)
    return restored[..., :height, :width]
