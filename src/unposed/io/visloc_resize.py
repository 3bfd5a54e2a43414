"""How the visual-localisation protocol of DUSt3R turns photos into views: crop to a usual aspect ratio, then resize."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_ASPECTS = ((4, 3), (32, 21), (16, 9), (2, 1), (16, 5))
"""Long side : short side of the views that the 512 models were trained on."""


@dataclass(frozen=True)
class AspectRule:
    """Crop about the centre to the nearest training aspect ratio, then resize bilinearly (DUSt3R, section 4.1 code)."""

    size: int = 512
    """Long side of the view in pixels; 224 means a square."""
    patch: int = 16
    """The short side is a multiple of it."""

    def plan(self, width: int, height: int) -> "CropPlan":
        """What this rule does to a photo of the given size."""
        long_side, short_side = max(width, height), min(width, height)
        if self.size == 224:
            aspect, view_short = 1.0, self.size
        else:
            aspect = min((long / short for long, short in _ASPECTS), key=lambda a: abs(a - long_side / short_side))
            view_short = round(self.size / aspect / self.patch) * self.patch
        crop_long = min(long_side, round(short_side * aspect))
        crop_short = min(short_side, round(long_side / aspect))
        crop = (crop_long, crop_short) if width >= height else (crop_short, crop_long)
        view = (self.size, view_short) if width >= height else (view_short, self.size)
        return CropPlan(((width - crop[0]) // 2, (height - crop[1]) // 2), crop, view)


@dataclass(frozen=True)
class CropPlan:
    """Crop ``crop`` pixels from ``corner`` on, then resize them to ``view``; all are (x, y) or (width, height)."""

    corner: tuple[int, int]
    crop: tuple[int, int]
    view: tuple[int, int]

    def apply(self, image: Float[Tensor, "channels height width"]) -> Float[Tensor, "channels view_height view_width"]:
        """The view's pixels (bilinear, antialiased)."""
        (left, top), (width, height) = self.corner, self.crop
        cropped = image[None, :, top : top + height, left : left + width]
        size = (self.view[1], self.view[0])
        return torch.nn.functional.interpolate(cropped, size, mode="bilinear", antialias=True)[0]

    @property
    def original_from_view(self) -> Float[Tensor, "3 3"]:
        """Affine map (float64) from the view's pixels to the photo's; (0, 0) is the centre of the top-left one."""
        scale_x, scale_y = self.crop[0] / self.view[0], self.crop[1] / self.view[1]
        shift_x = self.corner[0] + 0.5 * scale_x - 0.5
        shift_y = self.corner[1] + 0.5 * scale_y - 0.5
        return torch.tensor([[scale_x, 0, shift_x], [0, scale_y, shift_y], [0, 0, 1]], dtype=torch.float64)
