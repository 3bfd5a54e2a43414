"""Cameras of a few frames of a sequence, in all pairs: CO3Dv2 and RealEstate10K (PoseDiffusion; DUSt3R 4.2)."""

import itertools
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.protocols.base import FAILED_DEG, counts, photos_of
from unposed.evaluation.relative_pose import Direction, mean_accuracy, pairwise_errors, share_below
from unposed.evaluation.results import Row
from unposed.models.base import PairModel
from unposed.tasks.reconstruct import reconstruct
from unposed.views import Camera


@dataclass(frozen=True)
class MultiviewPoses:
    """RRA, RTA and mAA, in percent, of all pairs of randomly chosen frames; the frames are named in the results."""

    model: PairModel
    frames: int | None = 10
    """How many of each sequence; None: all."""
    seed: int = 0
    share_deg: int = 15
    mean_up_to_deg: int = 30
    direction: Direction = "pose-diffusion"

    def score(self, sequence: FrameSequence) -> Row:
        """Errors of all pairs; those of an unregistered frame are 180 degrees."""
        chosen = self.choose(sequence)
        if len(chosen) < 2:
            raise UserError(f"{sequence.name} has fewer than two frames with a pose")
        found = reconstruct(photos_of(chosen), model=self.model).cameras
        truth = {frame.photo.name: frame.camera for frame in chosen if frame.camera is not None}
        errors = _all_pairs(found, truth, self.direction)
        registered = sum(name in found for name in truth)
        return {"frames": list(truth), "registered": registered, **self._measured([errors]), "pairs_deg": errors}

    def failed(self, sequence: FrameSequence) -> Row:
        """180 degrees for every pair."""
        count = min(self.frames or len(sequence.frames), len(sequence.frames))
        errors = [[FAILED_DEG, FAILED_DEG] for _ in itertools.combinations(range(max(count, 2)), 2)]
        return {"registered": 0, **self._measured([errors]), "pairs_deg": errors}

    def summary(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Pairs pooled by category and the categories averaged, as PoseDiffusion; beside it two other averages.

        A category is what stands before the first ``/`` of a sequence's name.
        """
        groups: dict[str, list[list[list[float]]]] = defaultdict(list)
        for row in rows:
            groups[row["name"].split("/")[0] if "/" in row["name"] else ""].append(row["pairs_deg"])
        everything = [row["pairs_deg"] for row in rows]
        averages = {
            "": _mean([self._measured(group) for group in groups.values()]),
            " over pairs": self._measured(everything),
            " over sequences": _mean([self._measured([errors]) for errors in everything]),
        }
        named = {f"{name}{kind}": value for kind, values in averages.items() for name, value in values.items()}
        return {**counts(rows), "categories": len(groups), **named}

    def choose(self, sequence: FrameSequence) -> list[Frame]:
        """Frames with a pose, chosen at random by the seed and the name of the sequence, in their order."""
        posed = [frame for frame in sequence.frames if frame.camera is not None]
        if self.frames is None or len(posed) <= self.frames:
            return posed
        generator = np.random.default_rng([self.seed, zlib.crc32(sequence.name.encode())])
        return [posed[k] for k in sorted(generator.choice(len(posed), self.frames, replace=False))]

    def _measured(self, sequences: Sequence[list[list[float]]]) -> dict[str, float]:
        rotation, translation = np.array([pair for errors in sequences for pair in errors]).T
        return {
            f"RRA@{self.share_deg}": 100 * share_below(rotation, self.share_deg),
            f"RTA@{self.share_deg}": 100 * share_below(translation, self.share_deg),
            f"mAA@{self.mean_up_to_deg}": 100 * mean_accuracy(rotation, translation, self.mean_up_to_deg),
        }


def _all_pairs(found: Mapping[str, Camera], truth: Mapping[str, Camera], direction: Direction) -> list[list[float]]:
    """Rotation and translation error of every pair of true cameras, degrees."""
    names = list(truth)
    there = torch.tensor([name in found for name in names])
    poses = [found.get(name, truth[name]).world_from_camera.double() for name in names]
    true_poses = torch.stack([truth[name].world_from_camera.double() for name in names])
    errors = torch.stack(pairwise_errors(torch.stack(poses), true_poses, direction), -1)
    i, j = torch.triu_indices(len(names), len(names), 1)
    return torch.where((there[i] & there[j])[:, None], errors, FAILED_DEG).tolist()


def _mean(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]} if values else {}
