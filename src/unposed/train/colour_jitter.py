"""Random brightness, contrast, saturation and hue of one photo, in random order (DUSt3R's training augmentation)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance


@dataclass(frozen=True)
class ColourJitter:
    """Factors are uniform in [1 - x, 1 + x], the hue turns by a uniform share of the circle in [-hue, hue]."""

    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.1

    def __call__(
        self, image: UInt8[np.ndarray, "height width 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "height width 3"]:
        """The photo with other colours."""
        picture = Image.fromarray(image)
        brightness, contrast, saturation = (
            float(rng.uniform(max(0.0, 1 - x), 1 + x)) for x in (self.brightness, self.contrast, self.saturation)
        )
        turn = float(rng.uniform(-self.hue, self.hue))
        changes = (
            lambda p: ImageEnhance.Brightness(p).enhance(brightness),
            lambda p: ImageEnhance.Contrast(p).enhance(contrast),
            lambda p: ImageEnhance.Color(p).enhance(saturation),
            lambda p: _turned(p, turn),
        )
        for k in rng.permutation(len(changes)):
            picture = changes[k](picture)
        return np.array(picture)


def _turned(picture: Image.Image, turn: float) -> Image.Image:
    """The hue of every pixel moved by a share of the circle."""
    hsv = np.array(picture.convert("HSV"))
    hsv[..., 0] += np.uint8(round(turn * 255) % 256)  # the circle closes where the byte overflows
    return Image.fromarray(hsv, "HSV").convert("RGB")
