"""The view plane of MoGe: picture coordinates that know the aspect ratio but no focal length.

The picture's centre is the origin, half its diagonal the unit; samples sit at pixel centres. A focal length in this
unit is the focal length in pixels over half the diagonal in pixels.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def view_plane(
    height: int, width: int, aspect: float, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Float[Tensor, "height width 2"]:
    """Coordinates (u, v) of the samples of a map that covers a picture of ``aspect`` = width / height.

    The map's own ratio may differ from the picture's.
    """
    u, v = view_axes(height, width, aspect, device, dtype)
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), -1)


def view_axes(
    height: int, width: int, aspect: float, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> tuple[Float[Tensor, "width"], Float[Tensor, "height"]]:
    """The coordinates u of the columns and v of the rows."""
    ends = [span * (n - 1) / n for span, n in zip(spans(aspect), (width, height), strict=True)]
    u, v = (
        torch.linspace(-end, end, n, device=device, dtype=dtype) for end, n in zip(ends, (width, height), strict=True)
    )
    return u, v


def spans(aspect: float) -> tuple[float, float]:
    """Half the width and half the height of a picture, in units of half its diagonal."""
    diagonal = math.sqrt(1 + aspect**2)
    return aspect / diagonal, 1 / diagonal
