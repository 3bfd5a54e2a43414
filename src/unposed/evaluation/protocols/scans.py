"""Whole reconstructions against laser scans: F-scores of Tanks and Temples and of ETH3D."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets import tanks
from unposed.evaluation.datasets.base import FrameSequence
from unposed.evaluation.datasets.files import first_existing
from unposed.evaluation.point_clouds import align_clouds
from unposed.evaluation.protocols.base import counts, evenly, photos_of
from unposed.evaluation.results import Row
from unposed.geometry.similarity import fit_camera_similarity
from unposed.geometry.transforms import rigid, transform_points
from unposed.models.base import PairModel
from unposed.scene import Scene
from unposed.tasks.reconstruct import reconstruct

Points = Float[np.ndarray, "n 3"]

ETH3D_DISTANCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Metres; the benchmark's headline is 2 cm."""
_ROUNDS = (10.0, 5.0, 2.0)
"""ICP's farthest correspondence in three rounds, in units of the smallest distance."""


def tanks_distances(sequence: FrameSequence) -> tuple[float, ...]:
    """The distance of a training scene's F-score.

    Raises:
        UserError: the scene has none.
    """
    if sequence.name not in tanks.THRESHOLDS:
        raise UserError(f"{sequence.name} has no public scan: the training scenes are {', '.join(tanks.THRESHOLDS)}.")
    return (tanks.THRESHOLDS[sequence.name],)


def tanks_crop(sequence: FrameSequence) -> tanks.CropVolume:
    """The part of a scene that is scored, from ``<Scene>.json`` in its folder or beside it."""
    path = sequence.frames[0].photo.path
    assert path is not None
    name = f"{sequence.name}.json"
    return tanks.read_crop(first_existing(path.parent / name, Path(path.parent.parent) / name))


@dataclass(frozen=True)
class Scans:
    """Accuracy, completeness and F-score at the data set's distances, in percent, after alignment by the cameras.

    Both clouds are thinned to one point a voxel of half the smallest distance. Tanks and Temples crops both and refines
    the alignment by three rounds of ICP. (ETH3D's own tool also asks which space the laser saw to be free; here a point
    in free space is inaccurate like any other that is far from the scan.)
    """

    model: PairModel
    distances: Callable[[FrameSequence], tuple[float, ...]]
    crop: Callable[[FrameSequence], tanks.CropVolume] | None = None
    refine: bool = False
    headline: int = 0
    """Which of the distances ``f_score``, ``accuracy`` and ``completeness`` are of."""
    most: int | None = None
    """Photos of a scene at most, evenly spread."""

    def score(self, sequence: FrameSequence) -> Row:
        """Shares of predicted points near the scan and of the scan near predicted points."""
        if sequence.points is None:
            raise UserError(f"{sequence.name} has no laser scan beside its photos")
        distances = self.distances(sequence)
        frames = [sequence.frames[k] for k in evenly(len(sequence.frames), self.most)]
        scene = reconstruct(photos_of(frames), model=self.model)
        predicted = _aligned_points(scene, sequence)
        truth = sequence.points().double()
        voxel = min(distances) / 2
        if self.crop is not None:
            volume = self.crop(sequence)
            predicted, truth = predicted[volume.contains(predicted)], truth[volume.contains(truth)]
        found, scan = voxel_means(predicted.numpy(), voxel), voxel_means(truth.numpy(), voxel)
        for farthest in _ROUNDS if self.refine and len(found) else ():
            moved = align_clouds(found, scan, farthest * min(distances))
            found = found @ moved[:3, :3].T + moved[:3, 3]
        shares = _shares(found, scan, distances)
        return {"photos": len(frames), "registered": len(scene.views), **shares, **self._headline(shares, distances)}

    def failed(self, sequence: FrameSequence) -> Row:
        """No point near the other cloud."""
        zeros = dict.fromkeys(("accuracy", "completeness", "f_score"), 0.0)
        return {"photos": len(sequence.frames), "registered": 0, **zeros}

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Means over scenes."""
        names = ("accuracy", "completeness", "f_score")
        return {**counts(rows), **{name: float(np.mean([row[name] for row in rows])) for name in names}}

    def _headline(self, shares: Mapping[str, float], distances: Sequence[float]) -> dict[str, float]:
        ending = f"@{distances[self.headline]:g}"
        return {name: shares[name + ending] for name in ("accuracy", "completeness", "f_score")}


def _aligned_points(scene: Scene, sequence: FrameSequence) -> Float[Tensor, "n 3"]:
    """Points of the scene in the world of the scan, by the similarity between the cameras that both have."""
    truth = {frame.photo.name: frame.camera for frame in sequence.frames if frame.camera is not None}
    pairs = [
        (camera.world_from_camera.double(), truth[name].world_from_camera.double())
        for name, camera in scene.cameras.items()
        if name in truth
    ]
    if len(pairs) < 2:
        raise UserError(f"fewer than two photos of {sequence.name} have a pose to be aligned by")
    found, wanted = (torch.stack(poses) for poses in zip(*pairs, strict=True))
    scale, rotation, translation = fit_camera_similarity(found, wanted)
    return transform_points(rigid(scale * rotation, translation), scene.points().positions.double())


def voxel_means(points: Points, size: float) -> Points:
    """The mean of the points in every voxel of a grid that has some."""
    if len(points) == 0:
        return points
    _, index, count = np.unique(
        np.floor(points / size).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    means = np.zeros((len(count), 3))
    np.add.at(means, index.ravel(), points)
    return means / count[:, None]


def _shares(found: Points, scan: Points, distances: Sequence[float]) -> dict[str, float]:
    """Percentages strictly within each distance."""
    to_scan, to_found = np.full(len(found), np.inf), np.full(len(scan), np.inf)
    if len(found) and len(scan):
        to_scan, to_found = cKDTree(scan).query(found, workers=-1)[0], cKDTree(found).query(scan, workers=-1)[0]
    shares = {}
    for distance in distances:
        precision, recall = (
            100 * float((values < distance).mean()) if len(values) else 0.0 for values in (to_scan, to_found)
        )
        shares[f"accuracy@{distance:g}"], shares[f"completeness@{distance:g}"] = precision, recall
        shares[f"f_score@{distance:g}"] = 2 * precision * recall / max(precision + recall, 1e-12)
    return shares
