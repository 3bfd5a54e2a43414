"""Reference point clouds of benchmarks."""

from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.files import require_file


def read_points(path: Path) -> Float[Tensor, "n 3"]:
    """The points (or vertices) of a PLY file, float32.

    Raises:
        UserError: no such file, or no points in it.
    """
    require_file(path, "a point cloud")
    try:
        points = np.asarray(trimesh.load(path, file_type="ply", process=False).vertices, dtype=np.float32)
    except Exception as error:  # a damaged file can raise nearly anything
        raise UserError(f"{path} is no readable PLY point cloud; download it again.") from error
    if len(points) == 0:
        raise UserError(f"{path} holds no points; download it again.")
    return torch.from_numpy(points.copy())
