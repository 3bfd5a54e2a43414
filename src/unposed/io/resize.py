"""The family's rules that turn a photo into a network's view, each with the exact affine way back to the photo.

Pixel (0, 0) is the centre of the top-left pixel: a resize by factor s moves the centre x to (x + 0.5) s - 0.5.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from unposed.errors import UserError


@dataclass(frozen=True)
class ImageRule:
    """Resize and centre-crop rule of the DUSt3R family's picture loader (DUSt3R, released inference code)."""

    size: int = 512
    """Long side of the view in pixels; 224 means a square of that size instead."""
    patch: int = 16
    """Both sides of the view are multiples of it."""
    square_ok: bool = False
    """Keep square photos square; the released 512 models want them cropped to 4:3."""

    def plan(self, width: int, height: int) -> "ResizePlan":
        """What this rule does to a photo of the given size.

        Raises:
            UserError: the photo is so narrow that less than one patch would be left of a side.
        """
        longest = max(width, height)
        long_side = round(self.size * longest / min(width, height)) if self.size == 224 else self.size
        new_width, new_height = round(width * long_side / longest), round(height * long_side / longest)
        centre_x, centre_y = new_width // 2, new_height // 2
        crop_width, crop_height = self._crop(new_width, new_height)
        left, top = int(centre_x - crop_width / 2), int(centre_y - crop_height / 2)
        right, bottom = left + crop_width, top + crop_height
        if right - left < self.patch or bottom - top < self.patch:
            raise UserError(f"A photo of {width} x {height} pixels is too narrow for this model; crop it first.")
        return ResizePlan((width, height), (new_width, new_height), (left, top, right, bottom))

    def _crop(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the crop of a resized photo; it is taken about the pixel (width // 2, height // 2)."""
        even_width, even_height = 2 * (width // 2), 2 * (height // 2)
        if self.size == 224:
            side = min(even_width, even_height)
            return side, side
        crop_width, crop_height = (self.patch * (side // self.patch) for side in (even_width, even_height))
        if width == height and not self.square_ok:
            crop_height = self.patch * (3 * crop_width // (4 * self.patch))
        return crop_width, crop_height


@dataclass(frozen=True)
class WholeRule(ImageRule):
    """Keep the whole photo at its aspect ratio, made smaller where its long side is above ``size``, never larger."""

    patch: int = 1

    def plan(self, width: int, height: int) -> "ResizePlan":
        """What this rule does to a photo of the given size."""
        factor = min(1.0, self.size / max(width, height))
        resized = max(1, round(width * factor)), max(1, round(height * factor))
        return ResizePlan((width, height), resized, (0, 0, *resized))


@dataclass(frozen=True)
class ResizePlan:
    """Resize a photo to ``resized``, then crop ``box``; all sizes are (width, height) in pixels."""

    original: tuple[int, int]
    resized: tuple[int, int]
    box: tuple[int, int, int, int]
    """(left, top, right, bottom) in the resized photo."""

    def apply(self, image: Image.Image) -> Image.Image:
        """The view's pixels: Lanczos when the photo shrinks, bicubic otherwise, as the reference does."""
        shrinks = max(self.original) > max(self.resized)
        resample = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
        return image.resize(self.resized, resample).crop(self.box)

    @property
    def original_from_view(self) -> np.ndarray:
        """3x3 float64 affine map from the view's pixels to the original photo's."""
        scale_x, scale_y = self.original[0] / self.resized[0], self.original[1] / self.resized[1]
        left, top = self.box[:2]
        return np.array(
            [
                [scale_x, 0.0, (left + 0.5) * scale_x - 0.5],
                [0.0, scale_y, (top + 0.5) * scale_y - 0.5],
                [0.0, 0.0, 1.0],
            ]
        )
