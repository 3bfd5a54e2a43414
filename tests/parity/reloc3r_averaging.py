"""Reloc3r: motion averaging and the path of a camera through a video."""

import torch
from scipy.spatial.transform import Rotation

from tests.parity.harness import Case, runs
from unposed.align.averaging import average_poses, average_sequence, candidates, median_rotation, nearest_point
from unposed.geometry.pose_errors import rotation_error
from unposed.geometry.rotations import quaternion_from_matrix
from unposed.geometry.transforms import rigid

LARGEST_SPREAD = 15.0
"""Degrees between the average and most of what it is made of."""


def _inputs(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    return case.tensor("db_cam2world").double(), case.tensor("query_to_db").double()


def _xyzw(rotations: torch.Tensor) -> torch.Tensor:
    return quaternion_from_matrix(rotations).roll(-1, -1)


@runs("reloc3r", "motion_averaging*")
def motion_averaging(case: Case) -> None:
    world, relative = _inputs(case)
    rotations, starts, directions = candidates(world, relative)
    if "not_to_reproduce" in case.params:
        case.check("quaternions_reference", _xyzw(rotations))
        for name in case.params["not_to_reproduce"]:
            case.excuse(name, "reference bug: a median of quaternions whose signs differ")
        truth = case.tensor("true_query").double()
        for rotation in (median_rotation(rotations), average_poses(world, relative).world_from_camera[:3, :3]):
            assert float(rotation_error(rotation, truth[:3, :3])) < case.params["max_rotation_error_deg"]
        return
    case.check("quaternions", _xyzw(rotations))
    case.check("lines", torch.stack([starts, (world @ relative)[:, :3, 3]], 1))
    chosen = case.params["center_first_two"]["rays"]
    case.check("center_first_two", nearest_point(starts[:chosen], directions[:chosen]))
    if _signs_differ(rotations):
        case.excuse("pose", "reference bug: a median of quaternions whose signs differ")
        assert float(rotation_error(median_rotation(rotations), rotations).median()) < LARGEST_SPREAD
        return
    case.check("pose", rigid(median_rotation(rotations), nearest_point(starts, directions)))
    found = average_poses(world, relative)
    if found.agreeing.all():
        case.check("pose", found.world_from_camera)


@runs("reloc3r", "wild_visloc*")
def video(case: Case) -> None:
    poses = dict(zip(map(tuple, case.inputs["rel_index"].tolist()), case.tensor("rel_pose").double(), strict=True))
    for name in case.outputs:
        flips = False
        asked: dict[int, list[int]] = {}

        def relative_pose(i: int, j: int, asked: dict[int, list[int]] = asked) -> torch.Tensor:
            asked.setdefault(j, []).append(i)
            return poses[i, j]

        frames = case.params["frames"]
        path = average_sequence(relative_pose, frames, use_previous=case.params[name]["mode"] == "seq")
        found = torch.stack([pose.world_from_camera for pose in path])
        for frame, known in asked.items():
            candidate = torch.stack([found[i] @ poses[i, frame] for i in known])[:, :3, :3]
            flips |= frame < frames - 1 and _signs_differ(candidate)
            assert float(rotation_error(found[frame, :3, :3], candidate).median()) < LARGEST_SPREAD
        if flips:
            case.excuse(name, "reference bug: a median of quaternions whose signs differ")
        else:
            case.check(name, found)


def _signs_differ(rotations: torch.Tensor) -> bool:
    """Whether SciPy gives the quaternions of near rotations different signs, which the reference takes as they are."""
    quaternions = Rotation.from_matrix(rotations.numpy()).as_quat()
    return bool((quaternions @ quaternions[0] < 0).any())
