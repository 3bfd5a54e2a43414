"""Codebooks of image retrieval as the ASMK library pickles them, read without executing anything that is in them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError

_ARRAY_PARTS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}
"""All that a pickled NumPy array needs."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_PARTS:
            raise UserError(f"The codebook wants to run {module}.{name}, which no codebook needs; do not trust it.")
        return super().find_class(module, name)


def read_codebook(path: str | Path) -> Float[Tensor, "words dim"]:
    """Centroids of a ``*_codebook.pkl``: ``{"type", "params": {"size"}, "state": {"centroids"}}``.

    Raises:
        UserError: there is no such file; it is damaged, no codebook, or holds what we refuse to load.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file).load()
        centroids, size = content["state"]["centroids"], content["params"]["size"]
    except OSError as error:
        raise UserError(f"There is no readable codebook at {path}; put it beside the retrieval weights.") from error
    except UserError:
        raise
    except Exception as error:  # a hostile file can make the unpickler raise anything
        raise UserError(f"{path} is no codebook, damaged, or not completely downloaded; get it again.") from error
    if not isinstance(centroids, np.ndarray) or centroids.ndim != 2 or centroids.dtype.kind != "f":
        raise UserError(f"{path} holds no centroids; get it again.")
    if size != len(centroids):
        raise UserError(f"{path} should hold {size} codewords and holds {len(centroids)}; get it again.")
    return torch.from_numpy(np.array(centroids, np.float32))
