"""Pictures larger than the network's window: overlapping tiles, blended by confidence (CroCo v2, section 3.4)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError

Images = Float[Tensor, "batch channels height width"]
Size = tuple[int, int]
PairNetwork = Callable[[Images, Images], Images]
"""Two batches of crops to their maps, of which the last channel is the raw confidence."""


def tile_offsets(total: int, window: int, overlap: float) -> list[int]:
    """Where tiles of length ``window`` start along an axis, evenly spread, overlapping by at least that share."""
    count = 1 + math.ceil((total - window) / ((1 - overlap) * window))
    return [int(offset) for offset in np.round(np.linspace(0, total - window, count))]


@dataclass(frozen=True)
class Tiling:
    """All tiles of a picture: every row offset with every column offset."""

    size: Size
    window: Size
    rows: list[int]
    columns: list[int]

    @classmethod
    def plan(cls, size: Size, window: Size, overlap: float) -> "Tiling":
        """Tiles for a picture of (height, width) ``size``, at least as large as the window."""
        rows, columns = (tile_offsets(total, side, overlap) for total, side in zip(size, window, strict=True))
        return cls(size, window, rows, columns)

    def crop(self, picture: Float[Tensor, "1 channels height width"]) -> Float[Tensor, "tiles channels win_h win_w"]:
        """The tiles of a picture, row by row."""
        height, width = self.window
        return torch.cat([picture[..., y : y + height, x : x + width] for y in self.rows for x in self.columns])

    def blend(
        self, tiles: Float[Tensor, "tiles channels win_h win_w"], weights: Float[Tensor, "tiles 1 win_h win_w"]
    ) -> Float[Tensor, "1 channels height width"]:
        """Weighted mean of overlapping tiles."""
        height, width = self.window
        total = tiles.new_zeros(1, tiles.shape[1], *self.size)
        weight = tiles.new_full((1, 1, *self.size), 1e-16)
        places = [(y, x) for y in self.rows for x in self.columns]
        for (y, x), tile, w in zip(places, tiles, weights, strict=True):
            total[0, :, y : y + height, x : x + width] += w * tile
            weight[0, :, y : y + height, x : x + width] += w
        return total / weight


def blending_weights(raw: Float[Tensor, "*shape"], mode: str) -> Float[Tensor, "*shape"]:
    """Weight of a prediction with raw confidence ``raw`` (low means confident).

    ``conf_expsigmoid_B_S``: exp(-2 B (sigmoid(raw / S) - 1/2)); ``conf_expbetaB``: exp(-B raw).

    Raises:
        UserError: another mode.
    """
    try:
        if mode.startswith("conf_expsigmoid_"):
            beta, scale = (float(number) for number in mode.removeprefix("conf_expsigmoid_").split("_"))
            return torch.exp(-2 * beta * (torch.sigmoid(raw / scale) - 0.5))
        if mode.startswith("conf_expbeta"):
            return torch.exp(-float(mode.removeprefix("conf_expbeta")) * raw)
    except ValueError:
        pass
    raise UserError(f"No way {mode!r} of blending tiles; use conf_expsigmoid_B_S or conf_expbetaB with numbers.")


@torch.no_grad()
def predict_tiled(
    network: PairNetwork,
    image1: Float[Tensor, "1 3 height width"],
    image2: Float[Tensor, "1 3 height width"],
    window: Size,
    overlap: float,
    confidence_mode: str,
    batch: int = 4,
) -> tuple[Float[Tensor, "1 channels height width"], Float[Tensor, "1 height_used width_used"]]:
    """Disparity or flow of a pair of any size, and the blended raw confidence at the size the network worked at.

    A pair smaller than the window is enlarged first; values of the map are lengths in pixels of the given pair.
    The cost grows as 1 / (1 - overlap)^2.
    """
    original = (image1.shape[-2], image1.shape[-1])
    image1, image2 = enlarge_to(window, image1), enlarge_to(window, image2)
    used = (image1.shape[-2], image1.shape[-1])
    tiling = Tiling.plan(used, window, overlap)
    crops = zip(tiling.crop(image1).split(batch), tiling.crop(image2).split(batch), strict=True)
    maps = torch.cat([network(crop1, crop2) for crop1, crop2 in crops])
    blended = tiling.blend(maps, blending_weights(maps[:, -1:], confidence_mode))
    prediction, confidence = blended[:, :-1], blended[:, -1]
    return resize_displacements(prediction, original), confidence


def enlarge_to(window: Size, image: Float[Tensor, "1 c height width"]) -> Float[Tensor, "1 c height_used width_used"]:
    """The picture, bicubic, just large enough to hold the window; as it is if it already does."""
    height, width = image.shape[-2:]
    factor = max(window[0] / height, window[1] / width)
    if factor <= 1:
        return image
    return F.interpolate(image, size=(round(height * factor), round(width * factor)), mode="bicubic")


def resize_displacements(
    values: Float[Tensor, "1 channels height width"], size: Size
) -> Float[Tensor, "1 channels new_height new_width"]:
    """A map of pixel displacements (x, then y) at another size, bicubic; its values shrink or grow with the pixels."""
    height, width = values.shape[-2:]
    if (height, width) == size:
        return values
    factors = values.new_tensor([size[1] / width, size[0] / height])[: values.shape[1]]
    return F.interpolate(values, size=size, mode="bicubic") * factors[:, None, None]
