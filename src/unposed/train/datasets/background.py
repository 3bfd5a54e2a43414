"""Whether the depth of a background is forgotten: in every pair, in none, or in a random half of them."""

from typing import Literal

import numpy as np

from unposed.errors import UserError

MaskBackground = bool | Literal["rand"]


def checked_mask(mask_bg: MaskBackground) -> MaskBackground:
    """The option as it is. Raises ``UserError`` for another value."""
    if mask_bg not in (True, False, "rand"):
        raise UserError(f"mask_bg is {mask_bg!r}: use true, false or 'rand'.")
    return mask_bg


def draw_mask(mask_bg: MaskBackground, rng: np.random.Generator) -> bool:
    """Whether this pair is without background."""
    return bool(rng.integers(2)) if mask_bg == "rand" else bool(mask_bg)
