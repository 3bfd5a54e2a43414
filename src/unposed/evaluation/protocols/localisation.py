"""Visual localisation: 7Scenes, Cambridge Landmarks (DUSt3R 4.1), and any other queries against posed photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, Relocalisation
from unposed.evaluation.localisation import LIMITS, localisation_errors, median_errors, recall_within
from unposed.evaluation.protocols.base import counts
from unposed.evaluation.results import Row
from unposed.geometry.cameras import backproject
from unposed.geometry.transforms import transform_points
from unposed.models.base import PairModel
from unposed.tasks.localizer import Localizer
from unposed.tasks.posed_map import PosedMap, Reference


@dataclass(frozen=True, eq=False)
class DepthReference(Reference):
    """A photo of the map whose 3D is the data set's depth map, read when it is needed."""

    frame: Frame | None = None

    def lift(self, pixels: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        """World points at pixels of the photo; NaN where depth is unknown."""
        if self.frame is None or self.frame.depth is None:
            return super().lift(pixels)
        depth, camera = self.frame.depth(), self.camera
        height, width = depth.shape
        scale = torch.tensor([width / camera.width, height / camera.height], dtype=torch.float64)
        x, y = ((pixels.double() + 0.5) * scale - 0.5).round().long().unbind(-1)
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        values = depth[y.clamp(0, height - 1), x.clamp(0, width - 1)].double()
        values = torch.where(inside & (values > 0), values, torch.nan)
        return transform_points(
            camera.world_from_camera.double(), backproject(pixels.double(), values, camera.intrinsics.double())
        )


@dataclass(frozen=True)
class Localisation:
    """Each query with its true focal length, against its ``top_k`` references; not placed is infinitely far.

    References are the data set's list where it publishes one, else the most similar by the model's own features.
    """

    model: PairModel
    top_k: int = 20
    limits: str = "dust3r"
    """Name in ``unposed.evaluation.localisation.LIMITS``."""
    most: int | None = None
    """Queries of a scene at most, evenly spread."""

    def score(self, scene: Relocalisation) -> Row:
        """Medians over the queries (cm, degrees; lengths of the data in metres) and percentages within limits."""
        references = {f.photo.name: r for f in scene.references if (r := _reference(f)) is not None}
        if not references:
            raise UserError(f"{scene.name} has no photo with a camera to localise against")
        everything = self._localizer(scene, list(references.values()))
        queries = [frame for frame in scene.queries if frame.camera is not None]
        step = 1 if self.most is None else max(1, -(-len(queries) // self.most))
        errors = []
        for query in queries[::step]:
            localizer = everything
            if scene.retrieved is not None:
                names = scene.retrieved.get(query.photo.name, ())
                localizer = self._localizer(scene, [references[n] for n in names if n in references][: self.top_k])
            errors.append(_errors(localizer, query))
        return self._measured(np.array(errors).reshape(-1, 2))

    def failed(self, scene: Relocalisation) -> Row:
        """No query placed."""
        return self._measured(np.full((max(len(scene.queries), 1), 2), np.inf))

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Means over the scenes of their medians and percentages."""
        names = [name for name in rows[0] if name.startswith(("median_", "within "))]
        totals = {name: sum(row[name] for row in rows) for name in ("registered", "queries")}
        return {**counts(rows), **totals, **{name: float(np.mean([row[name] for row in rows])) for name in names}}

    def _localizer(self, scene: Relocalisation, references: Sequence[Reference]) -> Localizer:
        return Localizer(PosedMap(scene.name, tuple(references), True), self.model, top_k=self.top_k)

    def _measured(self, errors: Float[np.ndarray, "queries 2"]) -> Row:
        distance, angle = errors.T
        medians = median_errors(distance, angle)
        limits = LIMITS[self.limits]
        shares = recall_within(distance, angle, limits)
        return {
            "registered": int(np.isfinite(distance).sum()),
            "queries": len(errors),
            "median_cm": 100 * medians[0],
            "median_deg": medians[1],
            **{f"within ({m:g} m, {d:g} deg)": share for (m, d), share in zip(limits, shares, strict=True)},
            "errors_m_deg": errors.tolist(),
        }


def _reference(frame: Frame) -> Reference | None:
    if frame.camera is None:
        return None
    return DepthReference(frame.photo.name, frame.camera, frame.photo, frame=frame)


def _errors(localizer: Localizer, query: Frame) -> tuple[float, float]:
    """Distance and angle; infinite where the query is not placed."""
    assert query.camera is not None
    localizer.focal = float(query.camera.intrinsics[0, 0])
    pose = localizer.locate(query.photo).world_from_camera if localizer.map.references else None
    if pose is None:
        return float("inf"), float("inf")
    distance, angle = localisation_errors(pose[None], query.camera.world_from_camera[None])
    return float(distance[0]), float(angle[0])
