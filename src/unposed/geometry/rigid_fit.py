"""Rotation and translation between two sets of corresponding points, lengths kept."""

from jaxtyping import Float
from torch import Tensor

from unposed.geometry.transforms import fit_similarity, rigid


def fit_rigid(source: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]) -> Float[Tensor, "4 4"]:
    """The rigid transform that minimises ``sum |R source + t - target|^2`` (Umeyama 1991 with scale 1)."""
    _, rotation, _ = fit_similarity(source, target)  # the best rotation does not depend on the scale
    return rigid(rotation, target.mean(0) - rotation @ source.mean(0))
