"""One map of numbers as OpenEXR: depth as it goes to and comes from renderers, compositors and data sets."""

import os
from pathlib import Path

import numpy as np
import OpenEXR
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.io.atomic import atomic_write
from unposed.io.decode import MAX_PIXELS

DEPTH_CHANNEL = "Z"
"""Name that OpenEXR reserves for distance along the viewing axis."""
_PREFERRED = ("z", "y", "v", "r", "g", "b")
"""Last parts of channel names in the order in which they are taken for depth: distance, luminance, colour."""


def write_exr(path: str | Path, values: Float[Tensor, "height width"], channel: str = DEPTH_CHANNEL) -> None:
    """Write a map as one lossless 32-bit channel (ZIP compression); infinities and NaN are kept.

    Raises:
        UserError: the file cannot be written.
    """
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    pixels = np.ascontiguousarray(values.numpy(), dtype=np.float32)
    with atomic_write(path) as temporary:
        temporary.touch()  # says what the system has against the place, which the library does not
        OpenEXR.File(header, {channel: pixels}).write(os.fspath(temporary))


def read_exr(path: str | Path, channel: str | None = None) -> Float[Tensor, "height width"]:
    """One channel of the first part as float32, its values as they are stored (half, float or unsigned integer).

    What stands for "unknown" (0, infinity, 1e10, ...) differs between programs and is left as it is.

    Args:
        path: The file.
        channel: Full name, such as ``Z`` or ``ViewLayer.Depth.Z``; by default the only one, or the first whose name
            ends in Z, Y, V, R, G or B.

    Raises:
        UserError: no such file, damaged, no OpenEXR, larger than ``MAX_PIXELS``, or without such a channel.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}; give an OpenEXR file.")
    try:
        _check_size(path)
        with OpenEXR.File(os.fspath(path), separate_channels=True) as file:
            channels = {name: data.pixels for name, data in file.channels().items()}
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, MemoryError) as error:
        raise UserError(f"{path} is damaged or no OpenEXR file; get it again.") from error
    name = _choose(list(channels), path) if channel is None else channel
    if name not in channels:
        raise UserError(f"{path} has no channel {name}; it has {', '.join(sorted(channels)) or 'none'}.")
    values = torch.from_numpy(channels[name].astype(np.float32))
    if values.dim() != 2 or values.numel() == 0:
        raise UserError(f"{path} holds no picture in channel {name}; get it again.")
    return values


def _check_size(path: Path) -> None:
    """Refuse what a header promises before memory is asked for it."""
    with OpenEXR.File(os.fspath(path), header_only=True) as file:
        (left, top), (right, bottom) = (corner.tolist() for corner in file.header()["dataWindow"])
    if (right - left + 1) * (bottom - top + 1) > MAX_PIXELS:
        raise UserError(f"{path} is too large; the limit is {MAX_PIXELS // 10**6} megapixels.")


def _choose(names: list[str], path: Path) -> str:
    if len(names) == 1:
        return names[0]
    for ending in _PREFERRED:
        found = [name for name in names if name.lower().rpartition(".")[2] == ending]
        if found:
            return min(found, key=lambda name: (name.count("."), name))
    raise UserError(f"{path} has several channels, none of them depth by its name; name one of {', '.join(names)}.")
