"""Formula weights: every tensor of a golden's network is a pure function of its name, its shape and a seed.

The random stream of a tensor is PCG64 seeded with [seed, crc32(name)]. Tensors of two or more axes are
N(0, 1 / fan-in); vectors called ``weight`` or ``gamma`` (norm scales) are 1 + 0.1 N; all else is 0.1 N.
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

_NORM_SCALES = {"weight", "gamma"}


def formula_tensor(name: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """One float32 entry of a state dict."""
    stream = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    noise = np.asarray(stream.standard_normal(tuple(shape) or None)).astype(np.float32)
    if len(shape) >= 2:
        fan_in = max(1, math.prod(shape[1:]))
        return np.asarray(noise / math.sqrt(fan_in), np.float32)
    offset = 1.0 if name.rsplit(".", 1)[-1] in _NORM_SCALES else 0.0
    return np.asarray(offset + 0.1 * noise, np.float32)


def formula_state_dict(manifest: Mapping[str, Sequence[int]], seed: int) -> dict[str, np.ndarray]:
    """A state dict for a manifest {name: shape}."""
    return {name: formula_tensor(name, shape, seed) for name, shape in manifest.items()}
