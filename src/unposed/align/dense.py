"""From pair predictions to one scene: DUSt3R's global alignment (section 3.4), solved fast.

The objective is the published one: the distance, weighted by the log of the confidence, between every pair's pointmaps
moved by the pair's similarity and the depth maps seen through the cameras. The way to its minimum is not: the start
averages all pairs robustly (``initialise``), a quasi-Newton solver works on a weighted subset of pixels with the depths
eliminated (``solve``), and one pass over the full maps gives the depth maps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.align.depth import full_depth
from unposed.align.graph import connected_components
from unposed.align.initialise import Start, focals_agree, initial_focals, initialise, pair_poses
from unposed.align.objective import PUBLISHED
from unposed.align.sampling import (
    Progress,
    Samples,
    Survey,
    pair_focal,
    principal_point,
    sample_pairs,
    side_of,
    sides_of,
    survey_pairs,
)
from unposed.align.solve import LEAST_DEPTH, Solution, refine
from unposed.align.two_view import fit_frame, solve_two_views
from unposed.errors import UserError
from unposed.geometry.cameras import intrinsics_matrix, pointmap_from_depth
from unposed.geometry.similarity import fit_camera_similarity, move_camera
from unposed.geometry.transforms import invert_rigid, rigid, transform_points
from unposed.views import Pair, PairPrediction, View

MIN_CONFIDENCE = 1.1
"""Pairs below it are dropped. The score of a pair is the geometric mean of its two maps' mean confidences; models of
the family give at least 1, and barely more to two photos that share nothing."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """Cameras and depth maps of views that pairs connect, in one world frame.

    Without known poses the world is the camera of the first view and a unit of length is, in the geometric mean, the
    unit of the pair predictions: metres if those are metric. One known pose moves that world; two or more also set
    the scale.
    """

    indices: list[int]
    """Views of the component, into the list of views, ascending."""
    world_from_camera: Float[Tensor, "n 4 4"]
    intrinsics: Float[Tensor, "n 3 3"]
    """In pixels of the views."""
    depth: list[Float[Tensor, "height width"]]
    """z-depth per pixel, positive."""
    confidence: list[Float[Tensor, "height width"]]
    """Largest confidence that any used pair gives to the pixel."""
    objective: float
    """DUSt3R's objective over all pixels of the used pairs, at its scale: geometric mean of the pairwise scales 0.5,
    or, where two or more poses are known, the scale of those. 0 for a single view."""


def align(
    views: Sequence[View],
    predictions: Mapping[Pair, PairPrediction],
    *,
    known_intrinsics: Mapping[int, Float[Tensor, "3 3"]] | None = None,
    known_poses: Mapping[int, Float[Tensor, "4 4"]] | None = None,
    shared_focal: bool | None = False,
    min_confidence: float = MIN_CONFIDENCE,
    progress: Progress | None = None,
) -> list[Alignment]:
    """One alignment per connected component of the accepted pairs, largest first.

    ``predictions`` may load from disk: one pair is read at a time, four times in all. Pairs below ``min_confidence``
    and pairs that contradict the others are dropped. Known intrinsics (view pixels) and poses (``world_from_camera``,
    rigid) are kept exactly; any subset of views may have them. ``shared_focal`` holds the focal (view pixels) of all
    other views equal; None does so where the views' own estimates agree. A view with pairs of its own but no accepted
    one is a component of one, with the depth of its best pair; a view in no pair is in no component. A pair that names
    a view there is not is a ``UserError``.
    """
    known_intrinsics, known_poses = dict(known_intrinsics or {}), dict(known_poses or {})
    _check_pairs(views, predictions)
    survey = survey_pairs(views, predictions, min_confidence, progress)
    solver = _Solver(views, predictions, survey, known_intrinsics, known_poses, shared_focal, progress)
    alignments: list[Alignment] = []
    for members in connected_components(len(views), survey.pairs):
        if len(members) > 1:
            alignments += solver.component(members, sample_pairs(members, survey, predictions, progress))
        else:
            alignments += solver.single(members[0])
    return sorted(alignments, key=lambda a: (-len(a.indices), a.indices[0]))


def _check_pairs(views: Sequence[View], predictions: Mapping[Pair, PairPrediction]) -> None:
    for i, j in predictions:
        if not (0 <= i < len(views) and 0 <= j < len(views)):
            raise UserError(f"The pair ({i}, {j}) names a view that does not exist; there are {len(views)} views.")


@dataclass(frozen=True, eq=False)
class _Solver:
    """The inputs of ``align``, for the steps that need most of them."""

    views: Sequence[View]
    predictions: Mapping[Pair, PairPrediction]
    survey: Survey
    known_intrinsics: dict[int, Tensor]
    known_poses: dict[int, Tensor]
    shared_focal: bool | None
    progress: Progress | None

    def component(self, members: list[int], samples: Samples) -> list[Alignment]:
        """Solve a connected component; if pairs that contradict the others held it together, its parts."""
        sizes = [self.views[view].size for view in members]
        known_k = {row: self.known_intrinsics[v] for row, v in enumerate(members) if v in self.known_intrinsics}
        known = {row: self.known_poses[v].float() for row, v in enumerate(members) if v in self.known_poses}
        shared = focals_agree(samples) if self.shared_focal is None else self.shared_focal
        intrinsics = self._initial_intrinsics(members, samples, known_k, shared)
        if len(members) == 2 and len(known) < 2:
            return self._two_views(members, samples, intrinsics, known)
        poses = pair_poses(samples, intrinsics, sizes)
        start = initialise(samples, poses, len(members))
        if not start.consistent.all():
            return self._without_contradictions(members, samples, start)
        frames = rigid(
            start.pair_scale[:, None, None] * start.world_from_camera[samples.pairs[:, 0], :3, :3],
            start.world_from_camera[samples.pairs[:, 0], :3, 3],
        )
        solution = Solution(start.world_from_camera, intrinsics, frames)
        if len(known) > 1:
            solution = _fix_poses(solution, known)
        free_focal = torch.tensor([row not in known_k for row in range(len(members))])
        fixed_pose = torch.tensor([row in known and len(known) > 1 for row in range(len(members))])
        solution = refine(samples, solution, free_focal, shared, fixed_pose, self.progress)
        if len(known) < 2:
            row, pose = next(iter(known.items()), (0, torch.eye(4)))
            solution = _rebase(solution, row, pose)
        return [self._with_depth(members, samples, solution, known)]

    def single(self, view: int) -> list[Alignment]:
        """A view that no accepted pair connects: its own map in the best pair that has it first."""
        if view not in self.survey.best_pair:
            return []
        side = side_of(self.predictions[self.survey.best_pair[view][1]], 0)
        centre = principal_point(self.views[view])
        focal = pair_focal(side, centre)
        intrinsics = intrinsics_matrix(focal if focal == focal else float(max(self.views[view].size)), centre)
        return [
            Alignment(
                [view],
                self.known_poses.get(view, torch.eye(4)).float()[None],
                self.known_intrinsics.get(view, intrinsics).float()[None],
                [side.points[..., 2].clamp(min=LEAST_DEPTH)],
                [side.confidence],
                0.0,
            )
        ]

    def _two_views(
        self, members: list[int], samples: Samples, intrinsics: Float[Tensor, "2 3 3"], known: Mapping[int, Tensor]
    ) -> list[Alignment]:
        """Cameras in closed form, in the units of the surer pair; depths from both."""
        pairs = [(members[i], members[j]) for i, j in samples.pairs.tolist()]
        sides = {pair: sides_of(self.predictions[pair]) for pair in pairs}
        forward, backward = sides.get((members[0], members[1])), sides.get((members[1], members[0]))
        two = solve_two_views(forward, backward, intrinsics)
        if two is None:
            return self.single(members[0]) + self.single(members[1])
        row, pose = next(iter(known.items()), (0, torch.eye(4)))
        cameras = _rebase(
            Solution(two.world_from_camera, intrinsics, torch.zeros(0, 4, 4)), row, pose
        ).world_from_camera
        points = [
            transform_points(camera, pointmap_from_depth(depth, k))
            for camera, depth, k in zip(cameras, two.depth, intrinsics, strict=True)
        ]
        frames = [fit_frame(sides[pair], [points[members.index(view)] for view in pair]) for pair in pairs]
        solution = Solution(cameras, intrinsics, torch.stack(frames))
        return [self._with_depth(members, samples, solution, known)]

    def _initial_intrinsics(
        self, members: list[int], samples: Samples, known: Mapping[int, Tensor], shared: bool
    ) -> Float[Tensor, "views 3 3"]:
        sizes = [self.views[view].size for view in members]
        centres = torch.stack([principal_point(self.views[view]) for view in members])
        known_focals = {row: float(k[0, 0]) for row, k in known.items()}
        focals = initial_focals(samples, known_focals, sizes, centres, shared)
        intrinsics = intrinsics_matrix(focals, centres)
        for row, k in known.items():
            intrinsics[row] = k.float()
        return intrinsics

    def _without_contradictions(self, members: list[int], samples: Samples, start: Start) -> list[Alignment]:
        """Solve again with the consistent pairs only; they may connect fewer views."""
        kept = samples.pairs[start.consistent]
        alignments: list[Alignment] = []
        for part in connected_components(len(members), [(int(i), int(j)) for i, j in kept.tolist()]):
            views = [members[row] for row in part]
            if len(part) > 1:
                inside = torch.isin(samples.pairs[:, 0], torch.tensor(part))
                alignments += self.component(views, samples.keep(start.consistent & inside, part))
            else:
                alignments += self.single(views[0])
        return alignments

    def _with_depth(
        self, members: list[int], samples: Samples, solution: Solution, known: Mapping[int, Tensor]
    ) -> Alignment:
        pairs = [(members[i], members[j]) for i, j in samples.pairs.tolist()]
        maps = full_depth(members, pairs, samples.score, self.predictions, solution, self.progress)
        scale = 1.0 if len(known) > 1 else PUBLISHED.base_scale / float(solution.pair_scale.log().mean().exp())
        pose = solution.world_from_camera.clone()
        for row, exact in known.items():
            pose[row] = exact
        return Alignment(members, pose, solution.intrinsics, maps.depth, maps.confidence, scale * maps.objective)


def _fix_poses(solution: Solution, known: Mapping[int, Tensor]) -> Solution:
    """Move the world to where it fits two or more known cameras best, and those cameras to where they are."""
    rows, targets = torch.tensor(list(known)), torch.stack(list(known.values()))
    scale, rotation, translation = fit_camera_similarity(solution.world_from_camera[rows], targets)
    poses = move_camera(scale, rotation, translation, solution.world_from_camera)
    poses[rows] = targets
    world = rigid(scale * rotation, translation)
    return Solution(poses, solution.intrinsics, world @ solution.world_from_pair)


def _rebase(solution: Solution, row: int, pose: Float[Tensor, "4 4"]) -> Solution:
    """The rigidly moved world in which one camera has the given pose."""
    world = pose @ invert_rigid(solution.world_from_camera[row])
    return Solution(world @ solution.world_from_camera, solution.intrinsics, world @ solution.world_from_pair)
