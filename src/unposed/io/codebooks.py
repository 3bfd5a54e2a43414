"""Codebooks of image retrieval as the ASMK library pickles them, read without executing anything that is in them."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.io.array_pickles import load_arrays


def read_codebook(path: str | Path) -> Float[Tensor, "words dim"]:
    """Centroids of a ``*_codebook.pkl``: ``{"type", "params": {"size"}, "state": {"centroids"}}``.

    Raises:
        UserError: there is no such file; it is damaged, no codebook, or holds what we refuse to load.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = load_arrays(file)
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
