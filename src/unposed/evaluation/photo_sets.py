"""Photo sets with reference cameras and depth (``gt.json``), and cameras of a reconstruction against them."""

import itertools
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.datasets.files import png16, png_depth
from unposed.evaluation.pose import direction_error, pose_auc, rotation_error
from unposed.geometry.transforms import fit_similarity, invert_rigid
from unposed.io.photos import find_photos
from unposed.views import Camera

THRESHOLDS = (5, 10, 20, 30)


def read(root: Path, scenes: Sequence[str] | None = None) -> list[FrameSequence]:
    """Photo sets with reference cameras or depth: the folder itself if it has a ``gt.json``, else its sub-folders.

    ``gt.json``: ``images`` by name, with ``width height fx fy cx cy`` and, where known, ``world_to_camera`` (4x4) and
    ``depth`` (16-bit PNG, z = value * ``depth_scale``, 0 unknown) or ``disparity`` (pixels = value *
    ``disparity_scale``; z = fx * ``baseline_m`` / (pixels + ``doffs_px_at_stored_size``)).

    Raises:
        UserError: no set, or one that cannot be read.
    """
    root = Path(root)
    folders = [root] if (root / "gt.json").is_file() else sorted(path.parent for path in root.glob("*/gt.json"))
    if scenes is not None:
        folders = [root / name for name in scenes]
    if not folders:
        raise UserError(
            f"{root} holds no gt.json, nor does a folder in it; give a set of photos with reference cameras."
        )
    return [_read_set(folder) for folder in folders]


def _read_set(directory: Path) -> FrameSequence:
    truth, cameras = _read_truth(directory), read_reference(directory)
    frames = []
    for photo in find_photos(directory).photos:
        row = truth["images"].get(photo.name, {})
        depth = partial(_read_depth, directory, truth, row) if row.keys() & {"depth", "disparity"} else None
        frames.append(Frame(photo, cameras.get(photo.name), depth))
    return FrameSequence(directory.resolve().name, tuple(frames), metric=bool(truth.get("metric", False)))


def _read_depth(directory: Path, truth: Mapping[str, Any], row: Mapping[str, Any]) -> Tensor:
    try:
        if "depth" in row:
            return png_depth(directory / row["depth"], 1 / float(truth["depth_scale"]))
        words = torch.from_numpy(png16(directory / row["disparity"]).astype("float32"))
        shifted = words * float(truth["disparity_scale"]) + float(truth.get("doffs_px_at_stored_size", 0.0))
        return torch.where((words > 0) & (shifted > 0), row["fx"] * float(truth["baseline_m"]) / shifted, 0.0)
    except KeyError as error:
        raise UserError(f"{directory / 'gt.json'} does not say {error}, which its depth needs.") from error


def _read_truth(directory: Path) -> dict[str, Any]:
    try:
        truth = json.loads((directory / "gt.json").read_text(encoding="utf-8"))
        return {**truth, "images": dict(truth["images"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory} has no readable gt.json with reference cameras: {error}") from error


def read_reference(directory: Path) -> dict[str, Camera]:
    """Reference cameras of a set by photo name, at the stored size; photos without a reference pose are left out.

    Raises:
        UserError: no readable ``gt.json`` in the folder.
    """
    cameras = {}
    for name, row in _read_truth(directory)["images"].items():
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
    relative = {
        (a, b): _relative(found[a], found[b])
        for a, b in itertools.combinations(sorted(truth), 2)
        if a in found and b in found
    }
    result = {"registered": sum(name in found for name in truth), "photos": len(truth), **score_pairs(relative, truth)}
    common = [name for name in sorted(truth) if name in found]
    if len(common) >= 3:
        result["ate_over_extent"] = _trajectory_error(
            torch.stack([found[n].centre.double() for n in common]), torch.stack([truth[n].centre for n in common])
        )
    if common:
        share = [_focal_share(found[n]) / _focal_share(truth[n]) - 1 for n in common]
        result["focal_error_median"] = _median([abs(value) for value in share])
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()}


def score_pairs(found: Mapping[tuple[str, str], Tensor], truth: Mapping[str, Camera]) -> dict[str, float]:
    """Errors of relative poses ``b_from_a`` by names (a, b) in alphabetical order; a pair that is not there is 180
    degrees. Over all pairs of the reference; nothing for fewer than two photos."""
    rotation, direction = [], []
    for a, b in itertools.combinations(sorted(truth), 2):
        got, want = found.get((a, b)), _relative(truth[a], truth[b])
        resting = bool(want[:3, 3].norm() < 1e-9)  # no baseline: its direction is undefined
        rotation.append(180.0 if got is None else float(rotation_error(got[:3, :3], want[:3, :3])))
        direction.append(180.0 if got is None else 0.0 if resting else float(direction_error(got[:3, 3], want[:3, 3])))
    if not rotation:
        return {}
    worst = [max(pair) for pair in zip(rotation, direction, strict=True)]
    return {
        "rotation_median_deg": _median(rotation),
        "translation_median_deg": _median(direction),
        **{f"auc@{t}": area for t, area in zip(THRESHOLDS, pose_auc(worst, THRESHOLDS), strict=True)},
    }


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
