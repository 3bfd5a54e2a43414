"""Where a camera stands, from its poses relative to cameras that are known: motion averaging (Reloc3r, section 3.3).

Of a relative pose only the rotation and the direction of the translation are used. Every reference camera gives one
rotation of the query and one line through its own centre that the query's centre lies on; rotations are averaged by
their median, the centre is the point nearest to all lines. Two lines are needed that are not parallel: where all
cameras stand in one row with the query, its place along the row cannot be known, and the answer says so.

Of the lengths the answer needs none, so it does not matter that networks regress directions only; the unit of the
answer is that of the references.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.errors import UserError
from unposed.geometry.pose_errors import rotation_error
from unposed.geometry.rotations import matrix_from_quaternion, quaternion_from_matrix
from unposed.geometry.transforms import rigid

WORST_ROTATION, WORST_DIRECTION = 10.0, 10.0
"""Degrees by which a reference may differ from the answer, and not 5 times as much as most do, to be counted."""
LEAST_TO_VOTE = 4
"""References from which those that contradict the others are found out; of fewer nobody knows which is wrong."""
PARALLEL = 0.5
"""Degrees; lines that differ less than this on average meet nowhere."""
NEARLY_PARALLEL = 4.0
"""Degrees; where they differ less than this, errors of the relative poses may decide where they meet."""
_MEETINGS = 2000
"""Points where two lines meet that are tried, evenly picked among all."""
TYPICAL_ERROR = 1.0
"""Degrees of a relative pose's direction that are taken for granted, however well the lines meet."""
LARGEST_UNCERTAINTY = 0.2
"""Of the centre, as a share of the distance to the references."""

Poses = Float[Tensor, "references 4 4"]


@dataclass(frozen=True, eq=False)
class AveragedPose:
    """A camera placed among known ones, and how sure that is."""

    world_from_camera: Float[Tensor, "4 4"]
    """Rigid (float64), in the world and the unit of the references."""
    agreeing: Bool[Tensor, "references"]
    """References whose rotation and line are counted."""
    rotation_uncertainty: float
    """Standard error, degrees; 180 where nobody can know."""
    centre_uncertainty: float
    """Standard error of the centre along its least certain axis, in the unit of the world; infinite where the lines
    leave it open."""
    reliable: bool
    """Whether to believe rotation and centre."""
    reason: str
    """One sentence; empty when reliable."""


def average_poses(world_from_reference: Poses, reference_from_query: Poses) -> AveragedPose:
    """Pose of a query camera from its poses relative to n references; the lengths of their translations are not used.

    A reference whose pose is not finite is left out; one whose translation is zero tells a rotation, but no line. From
    ``LEAST_TO_VOTE`` of them on, those that contradict the others are left out too. Where the lines are parallel the
    centre is the point of their common direction next to the references.

    Raises:
        UserError: no reference.
    """
    world, relative = world_from_reference.double(), reference_from_query.double()
    usable = (world.isfinite() & relative.isfinite()).all(-1).all(-1)
    if not usable.any():
        raise UserError("No reference camera with a relative pose: nothing tells where the photo was taken.")
    rotations, starts, directions = candidates(world, relative)
    lined = usable & (directions.norm(dim=-1) > 0)
    agreeing = usable.clone()
    if int(usable.sum()) >= LEAST_TO_VOTE:
        agreeing &= _agreeing_rotations(rotations, usable)
        lined &= agreeing
        if int(lined.sum()) >= LEAST_TO_VOTE:
            lined &= _agreeing_lines(starts, directions, lined)
            agreeing &= lined | (directions.norm(dim=-1) == 0)
    rotation = median_rotation(rotations[agreeing])
    error = rotation_error(rotations[agreeing], rotation)
    turn = float(error.square().mean().sqrt()) / math.sqrt(max(len(error) - 1, 1)) if len(error) > 1 else 180.0
    a, d = (starts[lined], directions[lined]) if lined.any() else (starts[agreeing], directions[agreeing])
    centre = nearest_point(a, d)
    spread = _centre_uncertainty(a, d, centre)
    reason = _objection(len(error), int(usable.sum()), a, d, turn, spread, centre)
    return AveragedPose(rigid(rotation, centre), agreeing, turn, spread, not reason, reason)


def candidates(
    world_from_reference: Poses, reference_from_query: Poses
) -> tuple[Float[Tensor, "references 3 3"], Float[Tensor, "references 3"], Float[Tensor, "references 3"]]:
    """What every reference says: the query's rotation, and a point and the unit direction of the line of its centre.

    The direction is zero where the translation is.
    """
    world_from_query = world_from_reference @ reference_from_query
    starts = world_from_reference[:, :3, 3]
    rotated = (world_from_reference[:, :3, :3] @ reference_from_query[:, :3, 3:]).squeeze(-1)
    return world_from_query[:, :3, :3], starts, torch.nn.functional.normalize(rotated, dim=-1)


def median_rotation(rotations: Float[Tensor, "n 3 3"]) -> Float[Tensor, "3 3"]:
    """Component-wise median of the quaternions, whose signs are aligned with their largest eigenvector first.

    A quaternion and its negative are one rotation: medians of quaternions of both signs mean nothing.
    """
    quaternions = quaternion_from_matrix(rotations)
    reference = torch.linalg.eigh(quaternions.T @ quaternions).eigenvectors[:, -1]
    aligned = torch.where(quaternions @ reference[:, None] < 0, -quaternions, quaternions)
    return matrix_from_quaternion(aligned.quantile(0.5, dim=0))  # of an even number the mean of the two in the middle


def nearest_point(starts: Float[Tensor, "*batch n 3"], directions: Float[Tensor, "*batch n 3"]) -> Tensor:
    """The point (*batch 3) with the least sum of squared distances to lines; a zero direction stands for its start.

    Along an axis that the lines leave open (see ``PARALLEL``) it is where the starting points are on average.
    """
    across = _across(directions)
    middle = starts.mean(-2)
    moment = (across @ (starts - middle[..., None, :])[..., None]).sum(-3)
    values, axes = torch.linalg.eigh(across.sum(-3))
    told = values > starts.shape[-2] * math.sin(math.radians(PARALLEL)) ** 2
    steps = torch.where(told, (axes.mT @ moment).squeeze(-1) / values.clamp(min=1e-12), 0.0)
    return middle + (axes @ steps[..., None]).squeeze(-1)


def average_sequence(
    relative_pose: Callable[[int, int], Float[Tensor, "4 4"]], frames: int, use_previous: bool = True
) -> list[AveragedPose]:
    """Path of a camera through a short video from its first and last frame, whose distance is 1 (Reloc3r).

    ``relative_pose(i, j)`` maps points of camera j to camera i. The world is the first camera's frame; every frame
    between is placed by the two ends and, with ``use_previous``, by the frame before it.

    Raises:
        UserError: less than two frames.
    """
    if frames < 2:
        raise UserError("A path needs at least two frames.")
    first = torch.eye(4, dtype=torch.float64)
    last = relative_pose(0, frames - 1).double()
    length = last[:3, 3].norm()
    last = rigid(last[:3, :3], last[:3, 3] / length.clamp(min=1e-12))
    path = [_given(first)]
    for frame in range(1, frames - 1):
        known = [(0, first), (frames - 1, last)]
        if use_previous and frame > 1:
            known.append((frame - 1, path[-1].world_from_camera))
        relative = torch.stack([relative_pose(index, frame).double() for index, _ in known])
        path.append(average_poses(torch.stack([pose for _, pose in known]), relative))
    return [*path, _given(last)]


def _given(pose: Float[Tensor, "4 4"]) -> AveragedPose:
    """A camera that defines the world."""
    return AveragedPose(pose, torch.ones(0, dtype=torch.bool), 0.0, 0.0, True, "")


def _across(directions: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch n 3 3"]:
    """Projection away from a unit direction."""
    return torch.eye(3, dtype=directions.dtype) - directions[..., :, None] * directions[..., None, :]


def _angles(point: Float[Tensor, "*batch 3"], starts: Tensor, directions: Tensor) -> Float[Tensor, "*batch n"]:
    """Degrees between the lines and where the point is seen from their starting points, 0 to 90."""
    to_point = torch.nn.functional.normalize(point[..., None, :] - starts, dim=-1)
    sine = torch.linalg.cross(to_point, directions.expand_as(to_point)).norm(dim=-1)
    return torch.atan2(sine, (to_point * directions).sum(-1).abs()).rad2deg()


def _agreeing_rotations(rotations: Float[Tensor, "n 3 3"], usable: Bool[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Usable references whose rotation is near that of the one that most others are near to."""
    between = rotation_error(rotations[:, None], rotations[None])
    between = between.masked_fill(~(usable[:, None] & usable[None]), math.inf)
    best = between[int(between.clamp(max=90.0).sum(1).argmin())]
    return usable & _not_outlying(best, usable, WORST_ROTATION)


def _agreeing_lines(starts: Tensor, directions: Tensor, usable: Bool[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Usable references whose line passes near the point that most lines pass near, among where two lines meet."""
    rows = torch.combinations(usable.nonzero()[:, 0])
    rows = rows[:: math.ceil(len(rows) / _MEETINGS)]
    angles = _angles(nearest_point(starts[rows], directions[rows]), starts, directions)
    cost = angles.clamp(max=2 * WORST_DIRECTION).masked_fill(~usable, 0.0).sum(1)
    best = angles[int(cost.argmin())]
    return usable & _not_outlying(best, usable, WORST_DIRECTION)


def _not_outlying(error: Float[Tensor, "n"], usable: Bool[Tensor, "n"], limit: float) -> Bool[Tensor, "n"]:
    """Below the limit, or not much worse than most."""
    return error <= max(limit, min(5 * float(error[usable].median()), 3 * limit))


def _centre_uncertainty(starts: Tensor, directions: Tensor, centre: Float[Tensor, "3"]) -> float:
    """Standard error of the centre along its worst axis, from how well the lines meet and under which angles."""
    across = _across(directions)
    lines = int((directions.norm(dim=-1) > 0).sum())
    least = math.sin(math.radians(NEARLY_PARALLEL)) ** 2
    if lines < 2 or float(torch.linalg.eigvalsh(across.mean(0))[0]) < least:
        return math.inf
    freedom = max(2 * lines - 3, 1)
    noise = math.sqrt(float(torch.deg2rad(_angles(centre, starts, directions)).square().sum()) / freedom)
    noise = max(noise, math.radians(TYPICAL_ERROR))
    distance = (centre - starts).norm(dim=-1).clamp(min=1e-9)
    information = (across / distance.square()[:, None, None]).sum(0)
    return noise / math.sqrt(max(float(torch.linalg.eigvalsh(information)[0]), 1e-18))


def _objection(
    agreeing: int, usable: int, starts: Tensor, directions: Tensor, turn: float, spread: float, centre: Tensor
) -> str:
    """The first thing that speaks against the answer; empty when nothing does."""
    if agreeing < 2:
        return f"{agreeing} of {usable} references is not enough: two are needed that stand apart"
    if 2 * agreeing <= usable and usable >= LEAST_TO_VOTE:
        return f"only {agreeing} of {usable} references agree: the photo may show another place"
    if math.isinf(spread):
        return (
            "the references stand in one row with the photo, or close together and far from it: its rotation may be "
            "right, its distance is unknown"
        )
    if turn > WORST_ROTATION:
        return f"the references differ in the photo's rotation by about {turn:.0f} degrees"
    distance = float((centre - starts).norm(dim=-1).median())
    if spread > LARGEST_UNCERTAINTY * distance:
        share = spread / max(distance, 1e-12)
        return f"the place of the photo is open by {share:.0%} of its distance to the references"
    return ""
