"""Open picture files that nobody vouches for: known formats only, a size limit before decoding, one error type."""

import io
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from pillow_heif import register_heif_opener

from unposed.io import exif

register_heif_opener()
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # damaged EXIF and the like: we say it, once

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "JPEG2000", "BMP", "PPM")
"""Pillow's names of the formats that are read, whatever a file is called."""
MAX_PIXELS = 300_000_000
"""Larger pictures are refused before they are decoded (900 MB as RGB)."""

_pillows_limit = threading.Lock()


class UnreadablePicture(Exception):
    """No photo can be had from this file; the message says why in a few words."""


def open_picture(source: Path | bytes) -> Image.Image:
    """Read the header of a picture file, or of one in memory; nothing is decoded yet.

    Raises:
        UnreadablePicture: no picture of a known format, or one of more than ``MAX_PIXELS`` pixels.
    """
    try:
        image = _open_whatever_size(io.BytesIO(source) if isinstance(source, bytes) else source)
    except UnidentifiedImageError as error:
        raise UnreadablePicture("damaged: no picture of a known format") from error
    except Exception as error:  # a damaged header can raise nearly anything
        raise UnreadablePicture(_reason(error)) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise UnreadablePicture(f"too large: {width} x {height} pixels; the limit is {MAX_PIXELS // 10**6} megapixels")
    return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an opened picture after EXIF rotation, before it is decoded."""
    width, height = image.size
    if image.format == "TIFF":  # Pillow itself turns these upright, as it decodes them
        return width, height
    return (height, width) if exif.upright(image) in exif.SIDE_SWAPPING else (width, height)


def decode(image: Image.Image) -> Image.Image:
    """RGB pixels of an opened picture after EXIF rotation; of an animation or a multi-picture file, the first.

    Transparent pixels are laid on white; 16-bit grey keeps its high byte; colour profiles are ignored, as the family
    does.

    Raises:
        UnreadablePicture: the data is damaged or cut, or holds no photo (32-bit or floating-point values).
    """
    try:
        image.load()
        transposition = exif.upright(image)
    except Exception as error:  # damaged data can raise nearly anything
        raise UnreadablePicture(_reason(error)) from error
    try:
        rgb = _to_rgb(image)
    except ValueError as error:
        raise UnreadablePicture(f"its colours ({image.mode}) cannot be turned into RGB") from error
    return rgb if transposition is None else rgb.transpose(transposition)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32-bit values have no white to scale by")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _open_whatever_size(stream: io.BytesIO | Path) -> Image.Image:
    """``Image.open`` without Pillow's process-wide limit, which is lower than ours and also warns."""
    with _pillows_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(stream, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({error.strerror})"
    if isinstance(error, MemoryError):
        return "does not fit in memory"
    return f"damaged ({' '.join(str(error).split())[:80] or type(error).__name__})"
