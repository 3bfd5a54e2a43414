"""Open picture files that nobody vouches for: a whitelist of formats, a size limit before decoding, one error type."""

import io
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from pillow_heif import register_heif_opener

from unposed.io import exif

register_heif_opener()

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "JPEG2000", "BMP", "PPM")
"""Pillow's names of the formats that are read, whatever a file is called."""
MAX_PIXELS = 300_000_000
"""Larger pictures are refused before they are decoded (900 MB as RGB)."""

_pixel_limit_lock = threading.Lock()


class UnreadablePicture(Exception):
    """No photo can be had from this file; the message says why in a few words."""


def open_picture(source: Path | bytes) -> Image.Image:
    """Read the header of a picture file, or of one in memory; nothing is decoded yet.

    Raises:
        UnreadablePicture: no picture of a known format, or one of more than ``MAX_PIXELS`` pixels.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        image = _open_without_pillows_limit(stream)
    except UnidentifiedImageError as error:
        raise UnreadablePicture("damaged, or not a picture") from error
    except Exception as error:  # a damaged header can raise nearly anything
        raise UnreadablePicture(_damaged(error)) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise UnreadablePicture(f"too large: {width} x {height} pixels, the limit is {MAX_PIXELS // 1_000_000} megapixels")
    return image


def size_after_rotation(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an opened picture the right way up."""
    width, height = image.size
    upright = exif.rotation(image)
    swaps = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270, Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE)
    return (height, width) if upright in swaps else (width, height)


def decode(image: Image.Image) -> Image.Image:
    """RGB pixels of an opened picture, the right way up.

    Transparent pixels are laid on white, 16-bit grey keeps its high byte; colour profiles are ignored, as the family
    does.

    Raises:
        UnreadablePicture: the data is damaged or cut, or holds no photo (32-bit or floating-point values).
    """
    upright = exif.rotation(image)
    try:
        image.load()
        rgb = _to_rgb(image)
    except UnreadablePicture:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise UnreadablePicture(_damaged(error)) from error
    return rgb if upright is None else rgb.transpose(upright)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnreadablePicture("holds 32-bit values, not colours")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _open_without_pillows_limit(stream: io.BytesIO | Path) -> Image.Image:
    """``Image.open`` with our limit in place of Pillow's lower, process-wide one."""
    with _pixel_limit_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(stream, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _damaged(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "may not be read (permissions)"
    return f"damaged ({' '.join(str(error).split())[:80] or type(error).__name__})"
