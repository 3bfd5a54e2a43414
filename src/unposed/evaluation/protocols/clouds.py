"""Point clouds of whole sequences against depth of the data set: 7Scenes and NRGBD (Spann3R's protocol, CUT3R's)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.point_clouds import align_clouds, cloud_errors, estimate_normals
from unposed.evaluation.protocols.base import counts, evenly, photos_of
from unposed.evaluation.results import Row
from unposed.geometry.cameras import backproject, map_pixels, pixel_grid
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.io.photos import make_view
from unposed.models.base import PairModel
from unposed.scene import Scene
from unposed.tasks.reconstruct import reconstruct
from unposed.views import View

Points = Float[Tensor, "points 3"]

_NAMES = (
    "accuracy",
    "accuracy_median",
    "completion",
    "completion_median",
    "normals",
    "normals_median",
    "chamfer",
    "f_score",
)
_WORST = dict(zip(_NAMES, [float("inf")] * 4 + [0.0, 0.0, float("inf"), 0.0], strict=True))


@dataclass(frozen=True)
class Clouds:
    """Predicted points of all frames, scaled and moved to the true ones, then compared with them.

    Both clouds are the pixels of the model's views that have true depth. Spann3R: keyframes every 20th (7Scenes), 40th
    (NRGBD); CUT3R: every 200th, 500th, and the central 224 pixels of each view only.
    """

    model: PairModel
    every: int = 20
    icp_limit: float = 0.1
    """Points farther apart do not correspond; in the data set's unit."""
    threshold: float = 0.05
    """Of the F-score."""
    centre_crop: int | None = None
    """Compare only this many pixels about the centre of each view."""
    most: int | None = None
    """Keyframes of a sequence at most, evenly spread."""

    def score(self, sequence: FrameSequence) -> Row:
        """Distances in the data set's unit. Unregistered frames add no predicted points, but true ones."""
        frames = [
            frame for frame in sequence.frames[:: self.every] if frame.camera is not None and frame.depth is not None
        ]
        frames = [frames[k] for k in evenly(len(frames), self.most)]
        if len(frames) < 2:
            raise UserError(f"{sequence.name} has fewer than two keyframes with camera and depth")
        scene = reconstruct(photos_of(frames), model=self.model)
        items = {item.view.name: item for item in scene.views}
        first = next(frame for frame in frames if frame.photo.name in items)
        truth, predicted, known = [], [], []
        for frame in frames:
            view = make_view(frame.photo, self.model.image_rule)
            kept, points = self._true_points(frame, view)
            truth.append(points)
            item = items.get(frame.photo.name)
            predicted.append(points if item is None else item.pointmap()[kept].double())
            known.append(torch.zeros(len(points), dtype=torch.bool) if item is None else item.depth[kept] > 0)
        normalised = self._normalised(torch.cat(predicted), torch.cat(truth), torch.cat(known), scene, first)
        numbers = self._compare(normalised.numpy(), torch.cat(truth).numpy())
        return {"frames": len(frames), "registered": len(items), "points": len(normalised), **numbers}

    def failed(self, sequence: FrameSequence) -> Row:
        """Infinite distances, no agreement."""
        return {"frames": len(sequence.frames[:: self.every]), "registered": 0, **_WORST}

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Means over sequences, and over those that were solved."""
        solved = [row for row in rows if "error" not in row]
        means = {name: float(np.mean([row[name] for row in rows])) for name in _NAMES}
        over = {f"{name} over solved": float(np.mean([row[name] for row in solved])) for name in _NAMES if solved}
        return {**counts(rows), **means, **over}

    def _normalised(
        self, predicted: Points, truth: Points, known: Bool[Tensor, "points"], scene: Scene, first: Frame
    ) -> Points:
        """Predicted world points by way of the first camera of each world: scaled there, and in the true world then."""
        if not known.any():
            raise UserError("no predicted point has true depth")
        assert first.camera is not None
        world_from_camera = first.camera.world_from_camera.double()
        camera_from_world = invert_rigid(scene[first.photo.name].camera.world_from_camera.double())
        local = transform_points(camera_from_world, predicted[known])
        true_local = transform_points(invert_rigid(world_from_camera), truth[known])
        return transform_points(world_from_camera, same_scale(local, true_local))

    def _true_points(self, frame: Frame, view: View) -> tuple[Bool[Tensor, "height width"], Points]:
        """Which pixels of a view have true depth, and their true world points."""
        assert frame.camera is not None
        assert frame.depth is not None
        depth = frame.depth()
        height, width = view.size
        pixels = map_pixels(view.original_from_view, pixel_grid(height, width, dtype=torch.float64))
        scale = torch.tensor([depth.shape[1] / frame.camera.width, depth.shape[0] / frame.camera.height])
        nearest = ((pixels + 0.5) * scale - 0.5).round().long()
        inside = ((nearest >= 0) & (nearest < torch.tensor([depth.shape[1], depth.shape[0]]))).all(-1)
        nearest = torch.where(inside[..., None], nearest, 0)
        true_depth = torch.where(inside, depth[nearest[..., 1], nearest[..., 0]], 0.0).double()
        kept = (true_depth > 0) & self._central(height, width)
        local = backproject(pixels[kept], true_depth[kept], frame.camera.intrinsics.double())
        return kept, transform_points(frame.camera.world_from_camera.double(), local)

    def _central(self, height: int, width: int) -> Bool[Tensor, "height width"]:
        kept = torch.ones(height, width, dtype=torch.bool)
        if self.centre_crop is not None:
            side = self.centre_crop / 2
            offset = (pixel_grid(height, width) - torch.tensor([(width - 1) / 2, (height - 1) / 2])).abs()
            kept = (offset < side).all(-1)
        return kept

    def _compare(self, found: Float[np.ndarray, "n 3"], reference: Float[np.ndarray, "m 3"]) -> dict[str, float]:
        moved = align_clouds(found, reference, self.icp_limit)
        found = found @ moved[:3, :3].T + moved[:3, 3]
        errors = cloud_errors(found, reference, self.threshold, estimate_normals(found), estimate_normals(reference))
        ways = errors.accuracy, errors.completion
        values = [
            *(value for way in ways for value in (way.mean, way.median)),
            errors.normal_consistency,
            sum(way.normal_median for way in ways) / 2,
            errors.chamfer,
            errors.f_score,
        ]
        return dict(zip(_NAMES, values, strict=True))


def same_scale(predicted: Points, truth: Points) -> Points:
    """Predicted points of camera 1 at the scale and the median depth of the true ones (Spann3R's evaluation).

    Each cloud without its median z; its scale is the median distance to its component-wise median.
    """
    true_z = truth[:, 2].median()
    truth, predicted = (_without_depth(points) for points in (truth, predicted))
    predicted = predicted * (_spread(truth) / _spread(predicted).clamp(1e-3, 1e3))
    return predicted + torch.tensor([0, 0, 1]) * true_z


def _without_depth(points: Points) -> Points:
    return points - torch.tensor([0, 0, 1]) * points[:, 2].median()


def _spread(points: Points) -> Float[Tensor, ""]:
    return (points - points.median(0).values).norm(dim=-1).median()
