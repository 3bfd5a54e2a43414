"""Point clouds against a reference: accuracy, completion, normals, F-score; and what brings them together first.

Distances are Euclidean, in the unit of the clouds, to the nearest point; none is clipped, no cloud is thinned.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree

from unposed.geometry.rigid_fit import fit_rigid

Points = Float[np.ndarray, "n 3"]

NORMAL_NEIGHBOURS = 30
"""Points that span the plane of a normal; Open3D's default."""
ICP_STEPS = 30
ICP_TOLERANCE = 1e-6
"""Changes of the share and of the distance of corresponding points at which ICP stops; Open3D's defaults."""


@dataclass(frozen=True)
class OneWay:
    """From every point of one cloud to the nearest of the other."""

    mean: float
    median: float
    normal_mean: float
    """Mean of ``|n . n'|`` over the same pairs; NaN without normals."""
    normal_median: float


@dataclass(frozen=True)
class CloudErrors:
    """Both ways, and what papers make of them."""

    accuracy: OneWay
    """From predicted points to the reference."""
    completion: OneWay
    """From reference points to the prediction."""
    precision: float
    """Share of predicted points nearer than the threshold."""
    recall: float
    """Share of reference points nearer than the threshold: the completion ratio."""

    @property
    def chamfer(self) -> float:
        """Mean of accuracy and completion; some papers report the sum."""
        return (self.accuracy.mean + self.completion.mean) / 2

    @property
    def normal_consistency(self) -> float:
        """Mean of both directions."""
        return (self.accuracy.normal_mean + self.completion.normal_mean) / 2

    @property
    def f_score(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are."""
        return 2 * self.precision * self.recall / max(self.precision + self.recall, 1e-12)


def cloud_errors(
    predicted: Points,
    reference: Points,
    threshold: float = 0.05,
    predicted_normals: Points | None = None,
    reference_normals: Points | None = None,
) -> CloudErrors:
    """Compare two clouds that are in one frame; normals are unit vectors of either sign."""
    to_reference, nearest_reference = cKDTree(reference).query(predicted, workers=-1)
    to_predicted, nearest_predicted = cKDTree(predicted).query(reference, workers=-1)
    forth = back = np.full(1, np.nan)
    if predicted_normals is not None and reference_normals is not None:
        forth = np.abs((reference_normals[nearest_reference] * predicted_normals).sum(-1))
        back = np.abs((predicted_normals[nearest_predicted] * reference_normals).sum(-1))
    return CloudErrors(
        _one_way(to_reference, forth),
        _one_way(to_predicted, back),
        float((to_reference < threshold).mean()),
        float((to_predicted < threshold).mean()),
    )


def _one_way(distance: Float[np.ndarray, "n"], agreement: Float[np.ndarray, "m"]) -> OneWay:
    return OneWay(*(float(f(values)) for values in (distance, agreement) for f in (np.mean, np.median)))


def estimate_normals(points: Points, neighbours: int = NORMAL_NEIGHBOURS) -> Points:
    """Unit normal of the plane through each point's nearest neighbours, itself among them; the sign is arbitrary."""
    tree = cKDTree(points)
    normals = np.empty((len(points), 3))
    for start in range(0, len(points), 100_000):  # bounded memory
        part = slice(start, start + 100_000)
        _, nearest = tree.query(points[part], min(neighbours, len(points)), workers=-1)
        around = points[nearest.reshape(len(nearest), -1)]
        around = around - around.mean(1, keepdims=True)
        _, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
        normals[part] = vectors[:, :, 0]
    return normals


def align_clouds(
    source: Points, target: Points, farthest: float, steps: int = ICP_STEPS, tolerance: float = ICP_TOLERANCE
) -> Float[np.ndarray, "4 4"]:
    """Point-to-point ICP from the identity: the rigid ``target_from_source`` (Besl and McKay 1992).

    Points farther than ``farthest`` from any of the target have no correspondence. Stops when neither the share of
    points with one nor their root-mean-square distance changes by ``tolerance``.
    """
    tree = cKDTree(target)
    moved, target_from_source = np.asarray(source, np.float64), np.eye(4)
    index, share, rms = _correspondences(tree, moved, farthest)
    for _ in range(steps):
        found = index < len(target)
        if found.sum() < 3:
            break
        step = fit_rigid(
            torch.from_numpy(moved[found]), torch.from_numpy(np.asarray(target, np.float64)[index[found]])
        ).numpy()
        target_from_source = step @ target_from_source
        moved = moved @ step[:3, :3].T + step[:3, 3]
        before = share, rms
        index, share, rms = _correspondences(tree, moved, farthest)
        if abs(share - before[0]) < tolerance and abs(rms - before[1]) < tolerance:
            break
    return target_from_source


def _correspondences(tree: cKDTree, points: Points, farthest: float) -> tuple[np.ndarray, float, float]:
    """Nearest indices (the size of the tree where there is none), share of points with one, RMS of their distances."""
    distance, index = tree.query(points, distance_upper_bound=farthest, workers=-1)
    found = np.isfinite(distance)
    rms = float(np.sqrt(np.mean(distance[found] ** 2))) if found.any() else 0.0
    return index, float(found.mean()), rms
