"""The pose of one photo's camera relative to another's, and whether to believe it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.align.matching import matches_of_both
from unposed.errors import UserError
from unposed.geometry.cameras import pixel_grid
from unposed.geometry.essential import TwoView, solve_essential
from unposed.geometry.pnp import solve_pnp
from unposed.geometry.pose_errors import direction_error, rotation_error
from unposed.geometry.procrustes import solve_procrustes
from unposed.geometry.transforms import invert_rigid, rigid
from unposed.io.photos import Photo, make_views
from unposed.models.base import MatchModel, PairModel, PoseModel
from unposed.models.inference import device_of
from unposed.tasks.inputs import PhotoLike, as_photo, as_pose_model
from unposed.tasks.match import centred_intrinsics, epipolar_error
from unposed.tasks.pose_regressed import regressed_pose
from unposed.tasks.pose_verdict import Evidence, judge
from unposed.tasks.progress import Reporter, Silent
from unposed.views import Matches, PairPrediction, RelativePose, View

Method = Literal["auto", "essential", "procrustes", "pnp"]

PNP_PIXELS = 4000
"""Pixels that PnP looks at, evenly picked among the sure ones."""
PROCRUSTES_ERROR = 0.05
"""Share of its depth within which a point of one prediction must be where the other has it."""
SURE = 1.2
"""Confidence from which a pixel's point is used, where enough pixels have it."""
_LEAST_SURE = 200
LARGEST_CONTRADICTION = 10.0, 30.0
"""Degrees of rotation and of direction that the poses of the predictions (a, b) and (b, a) may differ by."""
EXIF_SPREAD, MODEL_SPREAD = 0.05, 0.15
"""Standard deviation of the logarithm of a focal length that EXIF or the model's pointmap tells."""


def relative_pose(
    a: PhotoLike,
    b: PhotoLike,
    *,
    model: str | Path | PairModel | PoseModel = "auto",
    method: Method = "auto",
    focal_a: float | None = None,
    focal_b: float | None = None,
    device: str = "auto",
    report: Reporter | None = None,
) -> RelativePose:
    """Where camera b stands and looks relative to camera a.

    Args:
        a, b: files, Pillow pictures or arrays.
        model: a registered name, a path to a released file, a loaded model, or ``auto``.
        method: ``essential`` (epipolar geometry of the matches), ``procrustes`` (similarity between what the model says
            of the pairs (a, b) and (b, a)), ``pnp`` (pixels of b against their points in camera a; DUSt3R, section
            3.3), or ``auto``: essential for models that match by appearance, else pnp. A model that regresses poses
            (Reloc3r) has no other method than ``auto``; the result then has its name.
        focal_a, focal_b: focal lengths in pixels of the original photos, if known; otherwise what the model finds, who
            may have looked at EXIF. ``essential`` and the verdict use them; ``procrustes`` and ``pnp`` live with the
            model's points, who got them as a hint.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        report: where progress and warnings go; nowhere by default.

    Raises:
        UserError: a photo, model, method or focal length that cannot be used.
    """
    if method not in get_args(Method):
        raise UserError(f"unknown method {method!r}: use {', '.join(get_args(Method))}.")
    for focal in (focal_a, focal_b):
        if focal is not None and not 0 < focal < float("inf"):
            raise UserError(f"a focal length of {focal} pixels is impossible: give a positive number.")
    report = report or Silent()
    photos = [_told(as_photo(a, "a.png"), focal_a), _told(as_photo(b, "b.png"), focal_b)]
    loaded = as_pose_model(model, device, report)
    views = make_views(photos, loaded.image_rule)
    if isinstance(loaded, PoseModel):
        if method != "auto":
            raise UserError(f"{loaded.name} tells the pose itself: leave --method {method} out, or use another model.")
        return regressed_pose(loaded, views)
    pair = _look(loaded, views[0], views[1], (focal_a, focal_b))
    chosen = _preferred(pair) if method == "auto" else method
    pose = _SOLVERS[chosen](pair)
    return _answer(pair, pose, chosen)


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two views and all that a model says of them; intrinsics and matches in pixels of the views."""

    views: tuple[View, View]
    predict: Callable[[], tuple[PairPrediction, PairPrediction]]
    """Predictions for (a, b) and (b, a), worked out when they are first asked for."""
    intrinsics: tuple[Tensor, Tensor]
    """Known focal lengths where they are known."""
    own_intrinsics: tuple[Tensor, Tensor]
    """What the model's points go with."""
    focal_spread: float
    matches: Matches
    seen: bool
    """Whether the matches come from the look of the photos."""
    verified: bool
    """Whether the model itself has fitted one geometry to them."""
    max_error: float
    essential: TwoView | None
    metric: bool

    @property
    def forward(self) -> PairPrediction:
        """What the model says of (a, b)."""
        return self.predict()[0]

    @property
    def backward(self) -> PairPrediction:
        """What the model says of (b, a)."""
        return self.predict()[1]


def _told(photo: Photo, focal: float | None) -> Photo:
    """The photo with a known focal length in the place of EXIF's, where models look for a hint."""
    return photo if focal is None else replace(photo, exif_focal=focal)


def _look(model: PairModel, a: View, b: View, focals: tuple[float | None, float | None]) -> _Pair:
    views, features = [a, b], model.encode([a, b])

    @functools.cache
    def predict() -> tuple[PairPrediction, PairPrediction]:
        predictions = dict(model.decode(views, features, [(0, 1), (1, 0)]))
        return predictions[0, 1], predictions[1, 0]

    if isinstance(model, MatchModel):
        ((_, found),) = model.match_pairs(views, features, [(0, 1)])
        seen = True
    else:
        found = matches_of_both(*predict(), device_of(model))
        seen = found.verified or predict()[0].descriptors_i is not None
    own = [centred_intrinsics(view, focal) for view, focal in zip(views, found.focals, strict=True)]
    intrinsics, spread = list(own), 0.0
    for k, (view, known) in enumerate(zip((a, b), focals, strict=True)):
        if known is not None:
            intrinsics[k] = centred_intrinsics(view, known / float(view.original_from_view[0, 0]))
        else:
            spread = max(spread, EXIF_SPREAD if view.exif_focal else MODEL_SPREAD)
    matches, limit = found.matches, epipolar_error(a, b, found.verified)
    essential = solve_essential(matches.points_a, matches.points_b, intrinsics[0], intrinsics[1], b.size, limit)
    return _Pair(
        views=(a, b),
        predict=predict,
        intrinsics=(intrinsics[0], intrinsics[1]),
        own_intrinsics=(own[0], own[1]),
        focal_spread=spread,
        matches=matches,
        seen=seen,
        verified=found.verified,
        max_error=limit,
        essential=essential,
        metric=model.metric,
    )


def _preferred(pair: _Pair) -> str:
    """Essential where matches come from the look of the photos, pnp where they come from the points themselves."""
    return "essential" if pair.seen and pair.essential is not None else "pnp"


def _by_essential(pair: _Pair) -> Tensor | None:
    """Pose with a translation as long as a metric model's depths in camera a say, 1 where nobody says."""
    if pair.essential is None or not pair.metric:
        return None if pair.essential is None else pair.essential.j_from_i
    pixels = pair.matches.points_a[pair.essential.inliers].round().long()
    height, width = pair.forward.confidence_i.shape
    x, y = pixels[:, 0].clamp(0, width - 1), pixels[:, 1].clamp(0, height - 1)
    ratio = pair.forward.points_i[y, x, 2] / pair.essential.points[:, 2]
    pose = pair.essential.j_from_i.clone()
    pose[:3, 3] *= float(ratio[ratio > 0].median()) if (ratio > 0).any() else 1.0
    return pose


def _by_procrustes(pair: _Pair) -> Tensor | None:
    """The similarity that moves both photos' points from camera a, as (a, b) has them, to camera b, as (b, a) does.

    Weights are the product of the two confidences (DUSt3R, section 3.3); its translation is in units of (b, a).
    """
    forward, backward = pair.forward, pair.backward
    source = torch.cat([forward.points_i.reshape(-1, 3), forward.points_j.reshape(-1, 3)])
    target = torch.cat([backward.points_j.reshape(-1, 3), backward.points_i.reshape(-1, 3)])
    confidence = torch.cat(
        [
            (forward.confidence_i * backward.confidence_j).flatten(),
            (forward.confidence_j * backward.confidence_i).flatten(),
        ]
    )
    sure = _sure(confidence, SURE**2)
    found = solve_procrustes(source[sure], target[sure], confidence[sure], PROCRUSTES_ERROR)
    return None if found is None else found.target_from_source


def _by_pnp(pair: _Pair) -> Tensor | None:
    """The camera that sees the points of view b, which are in camera a, at their pixels."""
    return _second_from_first(pair.forward, pair.own_intrinsics[1])


def _second_from_first(prediction: PairPrediction, intrinsics: Tensor) -> Tensor | None:
    """Pose of the camera of a prediction's second view, whose K is given."""
    sure = _sure(prediction.confidence_j.flatten(), SURE)
    sure = sure[:: max(1, len(sure) // PNP_PIXELS)]
    pixels = pixel_grid(*prediction.confidence_j.shape).reshape(-1, 2)[sure]
    found = solve_pnp(pixels, prediction.points_j.reshape(-1, 3)[sure].double(), intrinsics)
    return None if found is None else invert_rigid(found.world_from_camera)


def _contradiction(pair: _Pair) -> str:
    """What the predictions for (a, b) and (b, a) contradict each other in; empty where they are one geometry anyway."""
    if pair.verified:
        return ""
    b_from_a = _second_from_first(pair.forward, pair.own_intrinsics[1])
    a_from_b = _second_from_first(pair.backward, pair.own_intrinsics[0])
    if b_from_a is None or a_from_b is None:
        return "the model's points of one photo fit no camera"
    again = invert_rigid(a_from_b)
    turn = float(rotation_error(b_from_a[:3, :3], again[:3, :3]))
    direction = float(direction_error(b_from_a[:3, 3], again[:3, 3]))
    if turn <= LARGEST_CONTRADICTION[0] and direction <= LARGEST_CONTRADICTION[1]:
        return ""
    return (
        f"what the model says of (a, b) and of (b, a) differs by {turn:.0f} degrees in rotation and {direction:.0f} in "
        "the direction of the translation: the photos hardly show the same things"
    )


_SOLVERS: dict[str, Callable[[_Pair], Tensor | None]] = {
    "essential": _by_essential,
    "procrustes": _by_procrustes,
    "pnp": _by_pnp,
}


def _sure(confidence: Float[Tensor, "n"], least: float) -> Tensor:
    """Indices of the pixels whose confidence is enough; of all where too few have it."""
    sure = (confidence >= least).nonzero()[:, 0]
    return sure if len(sure) >= _LEAST_SURE else torch.arange(len(confidence))


def _answer(pair: _Pair, pose: Tensor | None, method: str) -> RelativePose:
    """The pose as the user gets it, with the verdict."""
    evidence = Evidence(
        pair.matches, pair.views[0].size, pair.views[1].size, *pair.intrinsics, pair.focal_spread, pair.max_error
    )
    verdict = judge(evidence, pose, pair.essential)
    reason = verdict.reason or _contradiction(pair)
    pose = torch.eye(4, dtype=torch.float64) if pose is None else pose
    length = float(pose[:3, 3].norm())
    if not pair.metric and length > 0:
        pose = rigid(pose[:3, :3], pose[:3, 3] / length)
    k_a, k_b = ((view.original_from_view @ k).float() for view, k in zip(pair.views, pair.intrinsics, strict=True))
    return RelativePose(
        b_from_a=pose,
        scale="metric" if pair.metric else "unit",
        reliable=not reason,
        reason=reason,
        method=method,
        inliers=verdict.inliers,
        matches=len(pair.matches.confidence),
        rotation_uncertainty=verdict.rotation_uncertainty,
        translation_uncertainty=verdict.translation_uncertainty,
        intrinsics_a=k_a,
        intrinsics_b=k_b,
    )


def summary(pose: RelativePose) -> dict[str, object]:
    """The pose as plain values, for a person or a script; the names are those of the fields of ``RelativePose``."""

    def nested(matrix: Tensor | None) -> list[list[float]] | None:
        return None if matrix is None else matrix.tolist()

    return {
        "b_from_a": nested(pose.b_from_a),
        "scale": pose.scale,
        "reliable": pose.reliable,
        "reason": pose.reason,
        "method": pose.method,
        "inliers": pose.inliers,
        "matches": pose.matches,
        "rotation_degrees": pose.rotation_degrees,
        "rotation_uncertainty": pose.rotation_uncertainty,
        "translation_uncertainty": pose.translation_uncertainty,
        "intrinsics_a": nested(pose.intrinsics_a),
        "intrinsics_b": nested(pose.intrinsics_b),
    }


def described(pose: RelativePose) -> dict[str, object]:
    """The pose in words, for a person."""
    where = [round(x, 3) for x in invert_rigid(pose.b_from_a)[:3, 3].tolist()]
    turn, direction = pose.rotation_uncertainty, pose.translation_uncertainty
    facts: dict[str, object] = {
        "reliable": "yes" if pose.reliable else f"no: {pose.reason}",
        "rotation": f"{pose.rotation_degrees:.2f} degrees (give or take {turn:.1f})",
        "b_stands_at": f"{where} {'metres' if pose.scale == 'metric' else 'baselines'} right, below and ahead of a "
        f"(direction give or take {direction:.1f} degrees)",
        "matches_that_agree": f"{pose.inliers} of {pose.matches}",
        "method": pose.method,
    }
    if pose.method not in _SOLVERS:
        facts["matches_that_agree"] = "none are looked at, only whether the model's two predictions agree"
    for name, k in (("a", pose.intrinsics_a), ("b", pose.intrinsics_b)):
        if k is not None:
            facts[f"focal_length_of_{name}"] = f"{float(k[0, 0]):.1f} pixels"
    return facts
