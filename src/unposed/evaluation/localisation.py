"""Errors of localised cameras and the limits at which benchmarks count them."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.geometry.localisation_errors import median_errors, recall_within
from unposed.geometry.pose_errors import rotation_error

__all__ = ["LIMITS", "localisation_errors", "median_errors", "recall_within"]

LIMITS: dict[str, tuple[tuple[float, float], ...]] = {
    "dust3r": ((0.1, 1), (0.25, 2), (0.5, 5), (5, 10)),
    "hloc": ((0.01, 1), (0.02, 2), (0.03, 3), (0.05, 5), (0.25, 2), (0.5, 5), (5, 10)),
    "aachen": ((0.25, 2), (0.5, 5), (5, 10)),
    "inloc": ((0.25, 10), (0.5, 10), (1.0, 10)),
}
"""Pairs (metres, degrees) by who reports them; Aachen stands for the long-term localisation benchmarks."""


def localisation_errors(
    predicted: Float[Tensor, "queries 4 4"], truth: Float[Tensor, "queries 4 4"]
) -> tuple[Float[np.ndarray, "queries"], Float[np.ndarray, "queries"]]:
    """Distance of camera centres (the unit of the map) and angle of rotation (degrees) of ``world_from_camera``."""
    predicted, truth = predicted.double(), truth.double()
    distance = torch.linalg.vector_norm(predicted[:, :3, 3] - truth[:, :3, 3], dim=-1)
    return distance.numpy(), rotation_error(predicted[:, :3, :3], truth[:, :3, :3]).numpy()
