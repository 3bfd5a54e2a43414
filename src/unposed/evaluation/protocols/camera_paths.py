"""The camera's path through a video: ATE and RPE on Sintel, TUM-dynamics and ScanNet (MonST3R, CUT3R)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from unposed.errors import UserError
from unposed.evaluation.datasets.base import FrameSequence
from unposed.evaluation.protocols.base import counts, photos_of
from unposed.evaluation.results import Row
from unposed.evaluation.trajectory import Alignment, TrajectoryErrors, trajectory_errors
from unposed.models.base import PairModel
from unposed.tasks.reconstruct import reconstruct

_NOTHING = TrajectoryErrors(float("inf"), float("inf"), float("inf"))


@dataclass(frozen=True)
class CameraPaths:
    """Errors of each path after the best similarity.

    A sequence without a path (failed, a frame unregistered, or centres on one line) has infinite errors. Published code
    leaves such sequences out of its averages; here the plain mean is infinite then, and ``over solved`` is that other
    mean, to be read beside ``failed``.
    """

    model: PairModel
    alignment: Alignment = "sim3"

    def score(self, sequence: FrameSequence) -> Row:
        """ATE and translation RPE in the data set's unit, rotation RPE in degrees."""
        frames = [frame for frame in sequence.frames if frame.camera is not None]
        found = reconstruct(photos_of(frames), model=self.model).cameras
        missing = [frame.photo.name for frame in frames if frame.photo.name not in found]
        if missing:
            raise UserError(f"{len(missing)} of {len(frames)} frames have no pose, {missing[0]} first")
        predicted = torch.stack([found[frame.photo.name].world_from_camera for frame in frames])
        truth = torch.stack([frame.camera.world_from_camera for frame in frames if frame.camera is not None])
        return {"frames": len(frames), **asdict(trajectory_errors(predicted, truth, self.alignment))}

    def failed(self, sequence: FrameSequence) -> Row:
        """Infinite errors."""
        return {"frames": len(sequence.frames), **asdict(_NOTHING)}

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Means over sequences, of all and of those that were solved."""
        means: dict[str, float] = {}
        for name in asdict(_NOTHING):
            values = np.array([row[name] for row in rows])
            solved = values[np.isfinite(values)]
            means[name] = float(values.mean())
            means[f"{name} over solved"] = float(solved.mean()) if len(solved) else float("inf")
        return {**counts(rows), **means}
