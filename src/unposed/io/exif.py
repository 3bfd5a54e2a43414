"""What a photo's EXIF says that matters here: how it was held, and a hint of the focal length."""

import math
from typing import Any

from PIL import ExifTags, Image

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDE_SWAPPING = frozenset(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))
"""The transpositions that exchange width and height."""

_MILLIMETRES_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_DIAGONAL_OF_35MM_FILM = math.hypot(36.0, 24.0)


def upright(image: Image.Image) -> Image.Transpose | None:
    """The transposition that turns stored pixels the right way up (EXIF Orientation); None when they already are."""
    orientation = _tags(image).get(ExifTags.Base.Orientation, 1)
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def focal_in_pixels(image: Image.Image) -> float | None:
    """Focal length in pixels of the stored picture (square pixels, so also of the rotated one), or None.

    Preferred: FocalLength with the sensor's pixel pitch (FocalPlaneXResolution). Otherwise FocalLengthIn35mmFilm, read
    as CIPA DCG-001 defines it: equal diagonal fields of view. Values no lens has (outside 0.2 to 20 times the longer
    side) count as absent.
    """
    tags = _tags(image)
    longest = max(image.size)
    candidates = [_from_sensor(tags, longest), _from_35mm(tags, image.size)]
    return next((focal for focal in candidates if focal and 0.2 * longest < focal < 20 * longest), None)


def _from_sensor(tags: dict[int, Any], longest: int) -> float | None:
    focal = _number(tags.get(ExifTags.Base.FocalLength))
    pixels_per_unit = _number(tags.get(ExifTags.Base.FocalPlaneXResolution))
    unit = _MILLIMETRES_PER_UNIT.get(int(_number(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2)) or 0))
    if not focal or not pixels_per_unit or not unit:
        return None
    sides = [_number(tags.get(tag)) or 0.0 for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)]
    resized = longest / max(sides) if max(sides) > 0 else 1.0
    return focal * pixels_per_unit / unit * resized


def _from_35mm(tags: dict[int, Any], size: tuple[int, int]) -> float | None:
    focal = _number(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    return focal * math.hypot(*size) / _DIAGONAL_OF_35MM_FILM if focal else None


def _number(value: Any) -> float | None:
    """A positive finite number, or None for anything else that EXIF may hold there."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _tags(image: Image.Image) -> dict[int, Any]:
    """All tags of the main and the Exif directory; empty when they are damaged, since nothing depends on them."""
    try:
        exif = image.getexif()
        return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:  # Pillow lets struct, syntax, key and other errors out of damaged EXIF
        return {}
