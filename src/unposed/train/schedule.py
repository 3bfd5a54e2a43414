"""When and what to train on: the learning rate over a run, and which samples in which order (DUSt3R)."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

_SEED = 777
"""Every epoch draws from a generator seeded with this plus its number, so that all ranks agree."""


def warmup_cosine(time: float, warmup: float, total: float, peak: float, floor: float = 0.0) -> float:
    """Linear from 0 to ``peak`` at ``time`` = ``warmup``, then a half cosine down to ``floor`` at ``total``.

    The three times share one unit: epochs, steps, or seconds of the clock.
    """
    if time < warmup:
        return peak * time / warmup
    done = min((time - warmup) / max(total - warmup, 1e-12), 1.0)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))


def resized_indices(samples: int, size: int, epoch: int) -> Int[np.ndarray, "size"]:
    """A data set of ``samples`` items made into one of ``size``: a permutation of the epoch, repeated as needed."""
    order = np.random.default_rng(_SEED + epoch).permutation(samples)
    return np.resize(order, size)


def batch_order(
    samples: int, batch: int, aspects: int, epoch: int, world_size: int = 1, rank: int = 0
) -> Int[np.ndarray, "drawn 2"]:
    """Rows (sample, aspect ratio) of one rank's epoch: shuffled, one aspect ratio per batch, full batches only."""
    rng = np.random.default_rng(_SEED + epoch)
    drawn = samples // (batch * world_size) * batch * world_size
    order = np.arange(drawn)
    rng.shuffle(order)
    aspect = np.repeat(rng.integers(aspects, size=drawn // batch), batch)
    per_rank = drawn // world_size
    return np.stack([order, aspect], 1)[rank * per_rank : (rank + 1) * per_rank]


def mixture(sizes: Sequence[int], factors: Sequence[int]) -> Int[np.ndarray, "total 2"]:
    """Rows (data set, item) of several data sets one after the other, every item ``factor`` times in a row."""
    return np.concatenate(
        [
            np.stack([np.full(size * factor, k), np.repeat(np.arange(size), factor)], 1)
            for k, (size, factor) in enumerate(zip(sizes, factors, strict=True))
        ]
    )
