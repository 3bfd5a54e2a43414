"""Colours of traced pixels: textures, one light with shadows, ambient light, highlights, sky."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.synth.textures import Textures, sample
from unposed.synth.trace import Frames, Surface, blocked, directions
from unposed.synth.worlds import Groups


def shade(
    frames: Frames,
    surface: Surface,
    hit: Bool[Tensor, "frames height width"],
    textures: Textures,
    lighting: tuple[Tensor, Tensor, Tensor, Tensor],
    x: Tensor,
    y: Tensor,
    groups: Groups,
) -> Float[Tensor, "frames height width 3"]:
    """Display-encoded colours in [0, 1].

    ``lighting`` holds per frame the light (4), its colour (3), the ambient colour (3) and the sky row (3) of
    ``Worlds``. Light adds up in linear space, taken as the square of the display value.
    """
    light, light_colour, ambient, sky = lighting
    direction = directions(frames.world_from_pixel, x, y)
    length = torch.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
    pixel = frames.world_from_pixel[:, :, 0].norm(dim=-1)[:, None, None]  # radians of a pixel at the image centre
    albedo = _albedo(surface, hit, textures, direction, length, pixel, sky)

    to_light = [light[:, i, None, None] - light[:, 3, None, None] * surface.point[i] for i in range(3)]
    distance = torch.sqrt(to_light[0] ** 2 + to_light[1] ** 2 + to_light[2] ** 2) + 1e-6
    to_light = [component / distance for component in to_light]
    n = surface.normal
    cosine = (n[0] * to_light[0] + n[1] * to_light[1] + n[2] * to_light[2]).clamp(min=0)
    lifted = tuple(surface.point[i] + (1e-3 + 1e-4 * surface.depth) * n[i] for i in range(3))
    shadow = blocked(frames, lifted, light, groups) | surface.in_niche  # type: ignore[arg-type]
    falloff = torch.where(light[:, 3, None, None] > 0, 1 / (0.3 + 0.08 * distance**2), 1.0)
    direct = torch.where(shadow, 0.15 * cosine, cosine) * falloff

    half_vector = [to_light[i] - direction[i] / length for i in range(3)]
    norm = torch.sqrt(half_vector[0] ** 2 + half_vector[1] ** 2 + half_vector[2] ** 2) + 1e-6
    shine = ((n[0] * half_vector[0] + n[1] * half_vector[1] + n[2] * half_vector[2]) / norm).clamp(min=1e-4)
    gloss = surface.columns["specular"] * shine ** surface.columns["gloss"] * (direct > 0.2 * cosine) * falloff

    sky_share = 0.7 - 0.3 * n[1]  # more light from above
    irradiance = direct[..., None] * light_colour[:, None, None] + sky_share[..., None] * ambient[:, None, None]
    linear = albedo.square() * irradiance + gloss[..., None] * light_colour[:, None, None]
    linear = 1 - torch.exp(-1.4 * linear)  # a film's shoulder: bright light does not clip
    linear = torch.where(hit[..., None], linear, (albedo * sky[:, 2, None, None, None]).square())
    return linear.clamp(1e-6, 1).sqrt()


def _albedo(
    surface: Surface, hit: Tensor, textures: Textures, direction: tuple, length: Tensor, pixel: Tensor, sky: Tensor
) -> Float[Tensor, "frames height width 3"]:
    """Texture colour times tint; the panorama where nothing is hit (one lookup serves both)."""
    c = surface.columns
    cosine = -sum(surface.normal[i] * direction[i] for i in range(3)) / length
    size = surface.depth * pixel * length / cosine.clamp(min=0.06).sqrt()  # metres of a pixel on the surface
    stretched = (c["stretch"] > 0) & ~surface.in_niche
    across, along = surface.across, surface.along
    fit_u, fit_v = across / (2 * surface.half_across) + 0.5, along / (2 * surface.half_along) + 0.5
    u = torch.where(stretched, fit_u, c["scale"] * (c["cos"] * across - c["sin"] * along) + c["shift_u"])
    v = torch.where(stretched, fit_v, c["scale"] * (c["sin"] * across + c["cos"] * along) + c["shift_v"])
    step_u = size * torch.where(stretched, 0.5 / surface.half_across, c["scale"])
    step_v = size * torch.where(stretched, 0.5 / surface.half_along, c["scale"])
    turn = torch.atan2(direction[0], direction[2]) + sky[:, 1, None, None]
    tilt = torch.asin((direction[1] / length).clamp(-1, 1))
    u, v = torch.where(hit, u, turn / (2 * math.pi)), torch.where(hit, v, 0.5 + tilt / math.pi)
    step_u = torch.where(hit, step_u, pixel / (2 * math.pi))
    step_v = torch.where(hit, step_v, pixel / math.pi)
    number = torch.where(surface.on_back, c["back"], c["texture"])
    number = torch.where(hit, number, sky[:, 0, None, None]).to(torch.int32)
    base = sample(textures, number, u, v, step_u, step_v, hit & (c["mirror"] > 0))

    rate = c["detail_scale"]
    detail = sample(
        textures,
        c["detail"].to(torch.int32),
        rate * across + c["shift_v"],
        rate * along + c["shift_u"],
        size * rate,
        size * rate,
        torch.ones_like(hit),
    )
    mix = torch.where(hit & ~surface.on_back, c["mix"], 0)
    tone = torch.where(surface.on_back, c["back_tone"], torch.where(surface.in_niche, 0.8, 1.0))
    tint = torch.stack([c["red"], c["green"], c["blue"]], -1) * tone[..., None]
    return torch.lerp(base, detail, mix[..., None]) * torch.where(hit[..., None], tint, 1.0)
