"""Visual localisation: 7Scenes, Cambridge Landmarks (DUSt3R 4.1), and any other queries against posed photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, Relocalisation
from unposed.evaluation.localisation import LIMITS, localisation_errors, median_errors, recall_within
from unposed.evaluation.protocols.base import counts, evenly
from unposed.evaluation.results import Row
from unposed.geometry.cameras import backproject
from unposed.geometry.pnp import solve_pnp
from unposed.geometry.transforms import transform_points
from unposed.models.base import PairModel
from unposed.tasks.localizer import Localizer
from unposed.tasks.posed_map import PosedMap, Reference
from unposed.views import Camera

_RESECTION_POINTS = 2000


@dataclass(frozen=True, eq=False)
class DataReference(Reference):
    """A photo of the map whose 3D is what the data set has: depth, or points seen in it; read when it is needed."""

    frame: Frame | None = None

    def lift(self, pixels: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        """World points at pixels of the photo; NaN where none is known."""
        if self.frame is not None and self.frame.depth is not None:
            return self._by_depth(self.frame.depth(), pixels)
        if self.frame is not None and self.frame.landmarks is not None:
            places, points = self.frame.landmarks()
            return replace(self, sparse=(places, points), frame=None).lift(pixels)
        return super().lift(pixels)

    def _by_depth(self, depth: Float[Tensor, "height width"], pixels: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        camera = self.camera
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
        """Medians over the queries (cm, degrees; lengths of the data in metres) and percentages within limits.

        Where the data set hides the poses of its queries, the poses found, as its server takes them.
        """
        references = _References(scene)
        queries = [scene.queries[k] for k in evenly(len(scene.queries), self.most)]
        whole = self._localizer(scene, references.all()) if scene.retrieved is None else None
        poses: dict[str, Tensor | None] = {}
        for query in queries:
            names = (scene.retrieved or {}).get(query.photo.name, ())[: self.top_k]
            localizer = whole or self._localizer(scene, references.named(names))
            poses[query.photo.name] = _locate(localizer, query)
        known = [query for query in queries if query.camera is not None]
        if not known:
            return {"registered": sum(p is not None for p in poses.values()), "queries": len(poses), "poses": {
                name: None if pose is None else pose.tolist() for name, pose in poses.items()}}  # fmt: skip
        return self._measured(np.array([_errors(poses[query.photo.name], query) for query in known]).reshape(-1, 2))

    def failed(self, scene: Relocalisation) -> Row:
        """No query placed."""
        if all(query.camera is None for query in scene.queries):
            return {
                "registered": 0,
                "queries": len(scene.queries),
                "poses": {q.photo.name: None for q in scene.queries},
            }
        return self._measured(np.full((max(len(scene.queries), 1), 2), np.inf))

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Means over the scenes of their medians and percentages."""
        names = [name for name in (rows[0] if rows else {}) if name.startswith(("median_", "within "))]
        totals = {name: sum(row[name] for row in rows) for name in ("registered", "queries")}
        return {**counts(rows), **totals, **{name: float(np.mean([row[name] for row in rows])) for name in names}}

    def _localizer(self, scene: Relocalisation, references: Sequence[Reference]) -> Localizer:
        return Localizer(PosedMap(tuple(references), True), self.model, top_k=self.top_k)

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


class _References:
    """The photos of a map by name, made ready when they are asked for.

    A photo with points but no camera (a cut-out of a scan) gets the camera that sees the points at their pixels.
    """

    def __init__(self, scene: Relocalisation) -> None:
        self._frames = {frame.photo.name: frame for frame in scene.references}
        self._ready: dict[str, Reference | None] = {}

    def named(self, names: Sequence[str]) -> list[Reference]:
        """Those of these that can be used."""
        for name in names:
            if name not in self._ready:
                self._ready[name] = _reference(self._frames[name]) if name in self._frames else None
        return [reference for name in names if (reference := self._ready[name]) is not None]

    def all(self) -> list[Reference]:
        """All of them.

        Raises:
            UserError: there is none.
        """
        found = self.named(list(self._frames))
        if not found:
            raise UserError("no photo of the map has a camera to localise against")
        return found


def _reference(frame: Frame) -> Reference | None:
    camera = frame.camera
    if camera is None and frame.intrinsics is not None and frame.landmarks is not None:
        pixels, points = frame.landmarks()
        some = torch.linspace(0, len(pixels) - 1, min(len(pixels), _RESECTION_POINTS)).long()
        found = solve_pnp(pixels[some], points[some].double(), frame.intrinsics)
        if found is not None:
            camera = Camera(frame.intrinsics, found.world_from_camera, *frame.photo.size)
    if camera is None:
        return None
    return DataReference(frame.photo.name, camera, frame.photo, frame=frame)


def _locate(localizer: Localizer, query: Frame) -> Tensor | None:
    """``world_from_camera`` with the true focal length; None where the query is not placed."""
    intrinsics = query.intrinsics if query.camera is None else query.camera.intrinsics
    localizer.focal = None if intrinsics is None else float(intrinsics[0, 0])
    return localizer.locate(query.photo).world_from_camera if localizer.map.references else None


def _errors(pose: Tensor | None, query: Frame) -> tuple[float, float]:
    """Distance and angle; infinite where the query is not placed."""
    if pose is None or query.camera is None:
        return float("inf"), float("inf")
    distance, angle = localisation_errors(pose[None], query.camera.world_from_camera[None])
    return float(distance[0]), float(angle[0])
