"""The relative pose of two photos from a model that regresses it (Reloc3r), and what can be said of its trust.

There are no matches that could speak for or against such a pose. What is left is the model itself: it predicts where b
stands to a and where a stands to b independently, and the less the two agree, the less it knows.
"""

import math
from collections.abc import Sequence

import torch

from unposed.geometry.pose_errors import direction_error, rotation_error
from unposed.geometry.transforms import invert_rigid, rigid
from unposed.models.base import PairPose, PoseModel
from unposed.tasks.pose_verdict import LARGEST_ROTATION_UNCERTAINTY, LARGEST_TRANSLATION_UNCERTAINTY
from unposed.views import RelativePose, View

LARGEST_ZOOM = 1.5
"""Ratio of the focal lengths, where both are known, from which such a model's translations are wrong."""


def regressed_pose(model: PoseModel, views: Sequence[View]) -> RelativePose:
    """Pose of the second view's camera relative to the first's, the translation of length 1.

    The uncertainties are the differences of the two predictions divided by the square root of two; focal lengths are
    those of ``View.exif_focal``, and only a large zoom between the photos speaks against the pose.
    """
    ((_, pair),) = model.relative_poses(views, model.encode(views), [(0, 1)])
    found = pair.j_from_i.isfinite().all() and pair.i_from_j.isfinite().all()
    b_from_a = invert_rigid(pair.i_from_j) if found else torch.eye(4, dtype=torch.float64)
    length = float(b_from_a[:3, 3].norm())
    if length > 0:
        b_from_a = rigid(b_from_a[:3, :3], b_from_a[:3, 3] / length)
    turn, direction = _disagreement(pair) if found else (180.0, 90.0)
    reason = _objection(turn, direction, views) if found else "the model gave no numbers: its file may be damaged"
    return RelativePose(
        b_from_a=b_from_a,
        scale="unit",
        reliable=not reason,
        reason=reason,
        method=model.name,
        rotation_uncertainty=turn,
        translation_uncertainty=direction,
    )


def _disagreement(pair: PairPose) -> tuple[float, float]:
    """Standard errors of one prediction, degrees of rotation and of direction, from the difference of both."""
    again = invert_rigid(pair.i_from_j)
    turn = float(rotation_error(again[:3, :3], pair.j_from_i[:3, :3]))
    direction = float(direction_error(again[:3, 3], pair.j_from_i[:3, 3]))
    return turn / math.sqrt(2), min(direction / math.sqrt(2), 90.0)


def _objection(turn: float, direction: float, views: Sequence[View]) -> str:
    """What speaks against the pose; empty when nothing does."""
    focals = [v.exif_focal / float(v.original_from_view[0, 0]) for v in views if v.exif_focal]
    if len(focals) == 2 and max(focals) > LARGEST_ZOOM * min(focals):
        return "the photos have different zoom, which this model cannot see: use a model that matches them"
    if turn <= LARGEST_ROTATION_UNCERTAINTY and direction <= LARGEST_TRANSLATION_UNCERTAINTY:
        return ""
    return (
        f"the model's two predictions of this pair leave the pose open by about {turn:.0f} degrees in rotation, "
        f"{direction:.0f} in translation: the photos hardly show the same things, or the camera hardly moved"
    )
