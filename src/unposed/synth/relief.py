"""Terrain: a height field that is a sum of plane waves, met by bounded marching and bisection."""

import torch
from jaxtyping import Float
from torch import Tensor

WAVES = 6
_STEPS, _BISECTIONS = 28, 9
_REACH = 200.0  # metres; terrain ends there


def height(waves: Float[Tensor, "*batch waves 4"], x: Float[Tensor, "*batch"], z: Float[Tensor, "*batch"]) -> Tensor:
    """Metres above the mean: the sum of ``amplitude * sin(kx x + kz z + phase)``; rows kx, kz, phase, amplitude."""
    total = torch.zeros_like(x)
    for i in range(WAVES):
        kx, kz, phase, amplitude = waves[..., i, :].unbind(-1)
        total = total + amplitude * torch.sin(kx * x + kz * z + phase)
    return total


def slope(waves: Float[Tensor, "*batch waves 4"], x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of ``height`` by x and by z."""
    by_x, by_z = torch.zeros_like(x), torch.zeros_like(z)
    for i in range(WAVES):
        kx, kz, phase, amplitude = waves[..., i, :].unbind(-1)
        swing = amplitude * torch.cos(kx * x + kz * z + phase)
        by_x, by_z = by_x + kx * swing, by_z + kz * swing
    return by_x, by_z


def march(
    waves: Float[Tensor, "frames waves 4"],
    base: Float[Tensor, "frames"],
    eye: Float[Tensor, "frames 3"],
    direction: tuple[Tensor, Tensor, Tensor],
    missed: float,
) -> Float[Tensor, "frames height width"]:
    """Ray parameter where each ray first goes below the terrain around ``y = base``; ``missed`` where it does not.

    Steps grow with distance between the heights that the waves can reach, so a crest far away and thinner than a step
    may be missed; what is returned always lies on the surface, to float32 precision.
    """
    waves, base = waves[:, None, None], base[:, None, None]
    ex, ey, ez = eye[:, :, None, None].unbind(1)
    dx, dy, dz = direction
    reach = waves[..., 3].abs().sum(-1) + 1e-3
    inverse = 1 / torch.where(dy.abs() < 1e-9, 1e-9, dy)
    top, bottom = (base - reach - ey) * inverse, (base + reach - ey) * inverse
    start = torch.minimum(top, bottom).clamp(min=0.1)
    end = torch.maximum(top, bottom).clamp(max=_REACH)

    def below(t: Tensor) -> Tensor:
        return (ey + t * dy) - base + height(waves, ex + t * dx, ez + t * dz) > 0

    low, high = start, torch.full_like(start, missed)
    growth = (end / start).clamp(min=1) ** (1 / _STEPS)
    t = start
    for _ in range(_STEPS):
        t = t * growth
        open_yet = high == missed
        under = below(t) & open_yet & (end > start)
        high = torch.where(under, t, high)
        low = torch.where(open_yet & ~under, t, low)
    found = high != missed
    high = torch.where(found, high, low)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        under = below(middle)
        low, high = torch.where(under, low, middle), torch.where(under, middle, high)
    return torch.where(found, _secant(waves, base, (ex, ey, ez), direction, low, high), missed)


def _secant(waves: Tensor, base: Tensor, eye: tuple, direction: tuple, low: Tensor, high: Tensor) -> Tensor:
    """Zero of the chord between two parameters on either side of the surface."""

    def gap(t: Tensor) -> Tensor:
        x, y, z = (eye[i] + t * direction[i] for i in range(3))
        return y - base + height(waves, x, z)

    above, under = gap(low), gap(high)
    share = above / torch.where((above - under).abs() < 1e-12, 1.0, above - under)
    return low + share.clamp(0, 1) * (high - low)
