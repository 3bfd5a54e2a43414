"""Keypoints and matches as hloc reads them: two HDF5 files, one of keypoints by photo, one of matches by pair.

Layout (hloc's ``feature_path`` and ``matches_path``): the first holds ``<name>/keypoints``, n x 2 pixels whose (0, 0)
is the centre of the top-left pixel, with ``<name>/image_size`` (width, height). The second holds, in a group
``<name a>/<name b>`` whose names have ``-`` in place of ``/``, ``matches0`` (for every keypoint of a the index of the
keypoint of b, or -1) and ``matching_scores0`` (the confidence; 0 without a match).
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from unposed.io.atomic import atomic_write


def features_path(matches_path: Path) -> Path:
    """The file of keypoints beside a file of matches: ``matches.h5`` has ``matches-features.h5``."""
    return matches_path.with_name(f"{matches_path.stem}-features{matches_path.suffix}")


def write_features(
    path: Path, names: Sequence[str], sizes: Sequence[tuple[int, int]], keypoints: Sequence[Float[Tensor, "n 2"]]
) -> None:
    """Keypoints of photos of (width, height). Raises ``UserError`` where the file cannot be written."""
    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        for name, size, pixels in zip(names, sizes, keypoints, strict=True):
            group = file.create_group(name)
            group.create_dataset("keypoints", data=pixels.numpy().astype(np.float32))
            group.create_dataset("image_size", data=np.array(size))


def write_matches(
    path: Path,
    pairs: Sequence[tuple[str, str]],
    keypoints_of_first: Sequence[int],
    matches: Sequence[Int64[Tensor, "m 2"]],
    scores: Sequence[Float[Tensor, "m"]],
) -> None:
    """Matches of pairs of names as index pairs, no index twice in a pair; with the number of keypoints of the first.

    Raises ``UserError`` where the file cannot be written.
    """
    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        for (a, b), count, index, score in zip(pairs, keypoints_of_first, matches, scores, strict=True):
            matches0 = np.full(count, -1, np.int32)
            matches0[index[:, 0].numpy()] = index[:, 1].numpy()
            scores0 = np.zeros(count, np.float32)
            scores0[index[:, 0].numpy()] = score.numpy()
            group = file.create_group(f"{a.replace('/', '-')}/{b.replace('/', '-')}")
            group.create_dataset("matches0", data=matches0)
            group.create_dataset("matching_scores0", data=scores0)
