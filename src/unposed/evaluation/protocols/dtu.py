"""The official DTU evaluation (Aanaes et al., IJCV 2016) of clouds made with the data set's cameras (DUSt3R 4.5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree

from unposed.errors import UserError
from unposed.evaluation.datasets.base import FrameSequence
from unposed.evaluation.datasets.dtu import FARTHEST, SPACING, Reference, read_reference
from unposed.evaluation.protocols.base import counts, evenly, photos_of
from unposed.evaluation.results import Row
from unposed.models.base import PairModel
from unposed.tasks.reconstruct import Known, reconstruct

_NAMES = ("accuracy", "completeness", "overall")
_BLOCK = 100_000


@dataclass(frozen=True)
class DtuScans:
    """Accuracy, completeness and their mean in millimetres; the scan's cameras are given to the reconstruction.

    The official files ``SampleSet`` and ``Points`` lie beside the scans.
    """

    model: PairModel
    most: int | None = None
    """Photos of a scan at most, evenly spread."""

    def score(self, scan: FrameSequence) -> Row:
        """The two distances of one scan."""
        path = scan.frames[0].photo.path
        if path is None or not scan.name.removeprefix("scan").isdigit():
            raise UserError(f"{scan.name} is no scan of DTU")
        reference = read_reference(path.parents[2], int(scan.name.removeprefix("scan")))
        frames = [scan.frames[k] for k in evenly(len(scan.frames), self.most)]
        cameras = {frame.photo.name: frame.camera for frame in frames if frame.camera is not None}
        known = Known(
            {name: camera.intrinsics for name, camera in cameras.items()},
            {name: camera.world_from_camera for name, camera in cameras.items()},
        )
        scene = reconstruct(photos_of(frames), model=self.model, known=known)
        return {
            "photos": len(frames),
            "registered": len(scene.views),
            **score_scan(scene.points().positions, reference),
        }

    def failed(self, scan: FrameSequence) -> Row:
        """The largest distance that counts, both ways."""
        return {"photos": len(scan.frames), "registered": 0, **dict.fromkeys(_NAMES, FARTHEST)}

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Means over scans."""
        return {**counts(rows), **{name: float(np.mean([row[name] for row in rows])) for name in _NAMES}}


def score_scan(points: Float[torch.Tensor, "n 3"], reference: Reference) -> dict[str, float]:
    """Mean distances (mm) between a cloud, thinned and within the observed volume, and the scan above the table.

    Distances over 20 mm are left out, as published. Without any that counts the distance is 20 mm.
    """
    thinned = thin(points.double().numpy(), SPACING)
    observed = thinned[reference.observed(torch.from_numpy(thinned).float()).numpy()]
    truth = reference.points.double()
    above = truth[reference.above_plane(reference.points)].numpy()
    accuracy = _mean_distance(observed, truth.numpy())
    completeness = _mean_distance(above, thinned)
    return dict(zip(_NAMES, (accuracy, completeness, (accuracy + completeness) / 2), strict=True))


def _mean_distance(source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "m 3"]) -> float:
    if len(source) == 0 or len(target) == 0:
        return FARTHEST
    distance, _ = cKDTree(target).query(source, distance_upper_bound=FARTHEST, workers=-1)
    counted = distance[np.isfinite(distance)]
    return float(counted.mean()) if len(counted) else FARTHEST


def thin(points: Float[np.ndarray, "n 3"], spacing: float) -> Float[np.ndarray, "m 3"]:
    """A part of the points, of which no two are closer than ``spacing``: at random, each removes those near it."""
    points = points[np.random.default_rng(0).permutation(len(points))]
    tree = cKDTree(points)
    kept = np.ones(len(points), bool)
    for start in range(0, len(points), _BLOCK):
        todo = start + np.flatnonzero(kept[start : start + _BLOCK])
        for k, near in zip(todo, tree.query_ball_point(points[todo], spacing, workers=-1), strict=True):
            if kept[k]:
                kept[near] = False
                kept[k] = True
    return points[kept]
