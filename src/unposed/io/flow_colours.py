"""Disparity and flow as pictures for people."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unposed.io.depth_files import depth_colours

Colours = UInt8[Tensor, "height width 3"]

_WHEEL_PLACES = (0, 15, 21, 25, 36, 49, 55)
_WHEEL_COLOURS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 0, 0))
_SAMPLES = 200_000


def disparity_colours(disparity: Float[Tensor, "height width"]) -> Colours:
    """False colours, near (large) red and far blue, unknown black: the scale of ``depth_colours``."""
    return depth_colours(torch.where(disparity > 0, 1 / disparity, 0.0))


def flow_colours(flow: Float[Tensor, "height width 2"], longest: float | None = None) -> Colours:
    """The colour wheel of Baker et al. ("A database and evaluation methodology for optical flow", IJCV 2011).

    Direction is the hue, length the saturation, up to ``longest`` pixels (by default the 99th percentile); white does
    not move, unknown is black.
    """
    known = flow.isfinite().all(-1)
    x, y = torch.where(known[..., None], flow, 0.0).double().unbind(-1)
    length = torch.hypot(x, y)
    if longest is None:
        lengths = length[known]
        longest = float(lengths[:: len(lengths) // _SAMPLES + 1].quantile(0.99)) if len(lengths) else 1.0
    place = (torch.atan2(-y, -x) / torch.pi + 1) / 2 * _WHEEL_PLACES[-1]
    hue = np.stack([np.interp(place, _WHEEL_PLACES, channel) for channel in zip(*_WHEEL_COLOURS, strict=True)], -1)
    saturation = (length / max(longest, 1e-6)).clamp(max=1)[..., None]
    colours = 255 - saturation * (255 - torch.from_numpy(hue))
    return colours.round().to(torch.uint8).masked_fill_(~known[..., None], 0)
