"""Depth maps as COLMAP's multi-view stereo writes them (``stereo/depth_maps/*.bin``)."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from unposed.errors import UserError
from unposed.io.decode import MAX_PIXELS

_HEADER_BYTES = 64


def read_colmap_depth(path: str | Path) -> Float[np.ndarray, "height width"]:
    """Distance along z, in units of the model; 0 is unknown.

    The file is ``width&height&1&`` in ASCII and float32 values, row by row.

    Raises:
        UserError: no such file, or not of this form.
    """
    try:
        content = Path(path).read_bytes()
        width, height, channels, _ = content[:_HEADER_BYTES].split(b"&", 3)
        size, start = (int(height), int(width)), len(width) + len(height) + len(channels) + 3
        if int(channels) != 1 or min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            raise ValueError("impossible size")
        depth = np.frombuffer(content, "<f4", offset=start).reshape(size)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a depth map of COLMAP: make it again.") from error
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
