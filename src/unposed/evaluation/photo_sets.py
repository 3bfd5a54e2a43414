"""Cameras of a reconstruction against a photo set with reference cameras (``gt.json``)."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.pose import direction_error, pose_auc, rotation_error
from unposed.geometry.transforms import fit_similarity, invert_rigid
from unposed.views import Camera

THRESHOLDS = (5, 10, 20, 30)


def read_reference(directory: Path) -> dict[str, Camera]:
    """Reference cameras of a set by photo name, at the stored size; photos without a reference pose are left out.

    Raises:
        UserError: no readable ``gt.json`` in the folder.
    """
    try:
        images = json.loads((directory / "gt.json").read_text())["images"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{directory} has no readable gt.json with reference cameras: {error}") from error
    cameras = {}
    for name, row in images.items():
        if row.get("world_to_camera") is None:
            continue
        k = torch.tensor([[row["fx"], 0, row["cx"]], [0, row["fy"], row["cy"]], [0, 0, 1]], dtype=torch.float64)
        pose = invert_rigid(torch.tensor(row["world_to_camera"], dtype=torch.float64))
        cameras[name] = Camera(k, pose, row["width"], row["height"])
    return cameras


def score_cameras(found: Mapping[str, Camera], truth: Mapping[str, Camera]) -> dict[str, Any]:
    """Pose and focal errors over ALL pairs of photos of the reference.

    A pair with an unregistered photo counts as 180 degrees. The error of a pair is the larger of its rotation and
    translation-direction error. ``ate_over_extent``: root mean square of camera-centre distances after the best
    similarity, as a share of the reference's extent. Focals are compared as a share of the width.
    """
    rotation, direction = [], []
    for a, b in itertools.combinations(sorted(truth), 2):
        if a in found and b in found:
            want, got = _relative(truth[a], truth[b]), _relative(found[a], found[b])
            rotation.append(float(rotation_error(got[:3, :3], want[:3, :3])))
            resting = bool(want[:3, 3].norm() < 1e-9)  # no baseline: its direction is undefined
            direction.append(0.0 if resting else float(direction_error(got[:3, 3], want[:3, 3])))
        else:
            rotation.append(180.0)
            direction.append(180.0)
    worst = [max(pair) for pair in zip(rotation, direction, strict=True)]
    common = [name for name in sorted(truth) if name in found]
    result: dict[str, Any] = {"registered": len(common), "photos": len(truth)}
    if worst:
        result["rotation_median_deg"] = _median(rotation)
        result["translation_median_deg"] = _median(direction)
        result |= {f"auc@{t}": area for t, area in zip(THRESHOLDS, pose_auc(worst, THRESHOLDS), strict=True)}
    if len(common) >= 3:
        result["ate_over_extent"] = _trajectory_error(
            torch.stack([found[n].centre.double() for n in common]), torch.stack([truth[n].centre for n in common])
        )
    if common:
        share = [_focal_share(found[n]) / _focal_share(truth[n]) - 1 for n in common]
        result["focal_error_median"] = _median([abs(value) for value in share])
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()}


def _relative(a: Camera, b: Camera) -> Tensor:
    """``b_from_a`` in float64."""
    return b.camera_from_world.double() @ a.world_from_camera.double()


def _focal_share(camera: Camera) -> float:
    return float(camera.intrinsics[0, 0]) / camera.width


def _median(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5))


def _trajectory_error(found: Tensor, truth: Tensor) -> float:
    scale, rotation, translation = fit_similarity(found, truth)
    residual = (scale * found @ rotation.T + translation - truth).norm(dim=-1)
    extent = (truth - truth.mean(0)).norm(dim=-1).max()
    return float(residual.square().mean().sqrt() / extent.clamp(min=1e-12))
