"""From pair predictions to one scene by matches: MASt3R-SfM's sparse global alignment (section 3), solved fast.

Every view is reduced to a canonical pointmap with one depth per block of pixels, every pair to its matches; cameras,
focals, sizes and block depths are solved so that matched points meet, first in 3D, then in each other's pictures. Cost
and memory grow with the number of matches, not of pixels, and each prediction is read once.

The published method takes predictions of all pairs to share one unit. Many models' do not, and then an average over
pairs means nothing; so the maps of a view are brought to one unit while they are averaged (``CanonicalSums``), and each
view's size in the world is an unknown of its own anyway. What a unit of a prediction is in the world follows from both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.align.anchored import AnchoredMatches, anchor_matches
from unposed.align.canonical import STRIDE, CanonicalSums, CanonicalView
from unposed.align.dense import Alignment
from unposed.align.graph import connected_components
from unposed.align.initialise import one_focal_fits
from unposed.align.matching import matches_both_ways, pair_matches
from unposed.align.reciprocal import match_symmetric
from unposed.align.sampling import Progress, principal_point, side_of
from unposed.align.solve import LEAST_DEPTH
from unposed.align.sparse_objective import SparseScene
from unposed.align.sparse_solve import Freedom, SparseSolution, solve_sparse
from unposed.align.sparse_start import SparseStart, start_cameras
from unposed.errors import UserError
from unposed.geometry.similarity import fit_camera_similarity, move_camera
from unposed.geometry.transforms import invert_rigid
from unposed.views import Matches, Pair, PairPrediction, View

MIN_MATCHES = 12
"""Pairs with fewer matches are not used."""


@dataclass(frozen=True, eq=False)
class SparseAlignment(Alignment):
    """An alignment by matches. ``objective`` is the mean robust reprojection error (the fine loss), weighted by
    confidence; depth maps hang on the solved anchors, and confidence is that of the canonical views."""

    matches: Mapping[Pair, Matches]
    """Matches (view pixels) of the pairs that were used, by indices into the list of views."""


@dataclass(frozen=True, eq=False)
class ReadPairs:
    """What sparse alignment keeps of the predictions."""

    canonical: dict[int, CanonicalView]
    matches: dict[Pair, Matches]
    """Of every pair that has enough, once."""


def sparse_align(
    views: Sequence[View],
    predictions: Mapping[Pair, PairPrediction],
    *,
    known_intrinsics: Mapping[int, Float[Tensor, "3 3"]] | None = None,
    known_poses: Mapping[int, Float[Tensor, "4 4"]] | None = None,
    shared_focal: bool | None = False,
    free_principal_point: bool = False,
    min_matches: int = MIN_MATCHES,
    stride: int = STRIDE,
    progress: Progress | None = None,
) -> list[SparseAlignment]:
    """One alignment per connected component of the pairs with enough matches, largest first.

    ``predictions`` may load from disk: each is read once, with its reverse. Every view must be first in some pair, as
    in pairs given in both orders. Arguments and frames are those of ``align.dense.align``; principal points stay in
    the middle of the photos, or where known intrinsics have them, unless they are set free (as published). A view
    without enough matches is a component of one; a view in no pair is in no component.

    Raises:
        UserError: a pair names a view there is not, or a view is second in all its pairs.
    """
    read = read_pairs(views, predictions, min_matches, stride, progress)
    solver = _Solver(
        views,
        read.canonical,
        dict(known_intrinsics or {}),
        dict(known_poses or {}),
        shared_focal,
        free_principal_point,
        progress,
    )
    alignments: list[SparseAlignment] = []
    for members in connected_components(len(views), read.matches):
        alignments += solver.component(members, read.matches)
    return sorted(alignments, key=lambda a: (-len(a.indices), a.indices[0]))


def read_pairs(
    views: Sequence[View],
    predictions: Mapping[Pair, PairPrediction],
    min_matches: int = MIN_MATCHES,
    stride: int = STRIDE,
    progress: Progress | None = None,
) -> ReadPairs:
    """Canonical views of all views and matches of all pairs, reading one pair in both orders at a time."""
    sums: dict[int, CanonicalSums] = {}
    matches: dict[Pair, Matches] = {}
    unordered = dict.fromkeys((min(pair), max(pair)) for pair in predictions)
    for done, (i, j) in enumerate(unordered):
        if not 0 <= i <= j < len(views):
            raise UserError(f"The pair ({i}, {j}) names a view that does not exist; there are {len(views)} views.")
        found = {pair: predictions[pair] for pair in dict.fromkeys([(i, j), (j, i)]) if pair in predictions}
        for (own, _), prediction in found.items():
            side = side_of(prediction, 0)
            if own not in sums:
                sums[own] = CanonicalSums(views[own].size, min(stride, *views[own].size), own_scales=True)
            sums[own].add(side.points, side.confidence)
        if i != j:
            kept = _matches_of(found, (i, j))
            if len(kept.confidence) >= min_matches:
                matches[i, j] = kept
        if progress is not None:
            progress("reading pairs", done + 1, len(unordered))
    for pair in matches:
        for view in pair:
            if view not in sums:
                raise UserError(
                    f"Sparse alignment needs pairs in both orders, and {views[view].name} is never first in one."
                )
    return ReadPairs({view: one.finish() for view, one in sums.items()}, matches)


def _matches_of(found: Mapping[Pair, PairPrediction], pair: Pair) -> Matches:
    """Matches (first view of ``pair`` is a) from the predictions of one or of both orders."""
    forward, backward = found.get(pair), found.get((pair[1], pair[0]))
    if forward is None or backward is None:
        only = pair_matches(forward or found[pair[1], pair[0]])
        return only if forward is not None else _swapped(only)
    if forward.matches is not None and backward.matches is not None:
        return _union(forward.matches, _swapped(backward.matches))
    if forward.matches is None and forward.descriptor_confidence_i is not None:
        return match_symmetric(forward, backward)
    return matches_both_ways(forward, backward)


def _swapped(matches: Matches) -> Matches:
    return Matches(matches.points_b, matches.points_a, matches.confidence)


def _union(first: Matches, second: Matches) -> Matches:
    """Every match once, with the confidence it has in the first that has it."""
    a, b = torch.cat([first.points_a, second.points_a]), torch.cat([first.points_b, second.points_b])
    _, rows = np.unique(torch.cat([a, b], 1).numpy(), axis=0, return_index=True)
    chosen = torch.from_numpy(rows)
    return Matches(a[chosen], b[chosen], torch.cat([first.confidence, second.confidence])[chosen])


@dataclass(frozen=True, eq=False)
class _Solver:
    """The inputs of ``sparse_align`` for the steps that need most of them."""

    views: Sequence[View]
    canonical: dict[int, CanonicalView]
    known_intrinsics: dict[int, Tensor]
    known_poses: dict[int, Tensor]
    shared_focal: bool | None
    free_principal_point: bool
    progress: Progress | None

    def component(self, members: list[int], matches: Mapping[Pair, Matches]) -> list[SparseAlignment]:
        """Solve a connected component; if pairs that contradict the others held it together, its parts."""
        if len(members) == 1:
            return self.single(members[0])
        row = {view: k for k, view in enumerate(members)}
        inside = {(row[i], row[j]): found for (i, j), found in matches.items() if i in row and j in row}
        intrinsics = self._intrinsics(members)
        data = anchor_matches([self.canonical[view] for view in members], self._base_focals(members), inside)
        number = torch.bincount(data.pair, minlength=len(data.pairs))
        start = start_cameras(data, intrinsics) if bool((number > 0).all()) else None
        consistent = number > 0 if start is None else start.consistent
        if start is None or not bool(consistent.all()):
            pairs = [(members[i], members[j]) for i, j in data.pairs[consistent].tolist()]
            return self._parts(members, {pair: matches[pair] for pair in pairs})
        known = {row[view]: pose.float() for view, pose in self.known_poses.items() if view in row}
        if len(known) > 1:
            start = _fix_poses(start, known)
        free = torch.tensor([view not in self.known_intrinsics for view in members])
        fixed = torch.tensor([len(known) > 1 and k in known for k in range(len(members))])
        freedom = Freedom(free, self._shares_focal(members), free & self.free_principal_point, ~fixed)
        solution = solve_sparse(data, start, freedom, self.progress)
        used = {(members[i], members[j]): found for (i, j), found in inside.items()}
        return [self._alignment(members, data, solution, known, used)]

    def single(self, view: int) -> list[SparseAlignment]:
        """A view without matches: its canonical pointmap."""
        if view not in self.canonical:
            return []
        pose = self.known_poses.get(view, torch.eye(4)).float()[None]
        depth = _positive(self.canonical[view].points[..., 2])
        confidence = _confidence(self.canonical[view])
        return [SparseAlignment([view], pose, self._intrinsics([view]), [depth], [confidence], 0.0, {})]

    def _parts(self, members: list[int], matches: Mapping[Pair, Matches]) -> list[SparseAlignment]:
        parts: list[SparseAlignment] = []
        row = {view: k for k, view in enumerate(members)}
        for part in connected_components(len(members), [(row[i], row[j]) for i, j in matches]):
            parts += self.component([members[k] for k in part], matches)
        return parts

    def _shares_focal(self, members: Sequence[int]) -> bool:
        """Whether the views hold one focal; where nobody says, when their canonical pointmaps agree on one."""
        if self.shared_focal is not None:
            return self.shared_focal
        return one_focal_fits(self._base_focals(members).tolist())

    def _base_focals(self, members: Sequence[int]) -> Float[Tensor, "views"]:
        """Focals that the canonical pointmaps imply; of a map that tells nothing, the picture's longer side."""
        focals = [float(self.canonical[view].focal(principal_point(self.views[view]))) for view in members]
        return torch.tensor(
            [
                f if 0 < f < float("inf") else float(max(self.views[v].size))
                for v, f in zip(members, focals, strict=True)
            ]
        )

    def _intrinsics(self, members: Sequence[int]) -> Float[Tensor, "views 3 3"]:
        """Known ones; else the canonical focal, or the mean by confidence where all share it."""
        focal = self._base_focals(members)
        free = torch.tensor([view not in self.known_intrinsics for view in members])
        if self._shares_focal(members) and bool(free.any()):
            weight = torch.stack([self.canonical[view].confidence.mean() for view in members]) * free
            focal = torch.full_like(focal, float((weight * focal).sum() / weight.sum().clamp(min=1e-20)))
        centre = torch.stack([principal_point(self.views[view]) for view in members])
        k = torch.eye(3).repeat(len(members), 1, 1)
        k[:, 0, 0] = k[:, 1, 1] = focal
        k[:, :2, 2] = centre
        for row, view in enumerate(members):
            if view in self.known_intrinsics:
                k[row] = self.known_intrinsics[view].float()
        return k

    def _alignment(
        self,
        members: list[int],
        data: AnchoredMatches,
        solution: SparseSolution,
        known: Mapping[int, Tensor],
        matches: Mapping[Pair, Matches],
    ) -> SparseAlignment:
        """In the frame and unit of the known poses, or of the first view and the predictions."""
        scene = solution.scene
        if len(known) < 2:
            row, pose = next(iter(known.items()), (0, torch.eye(4)))
            scene = _placed(scene, self._unit(members, solution), row, pose)
        world = scene.world_from_camera.clone()
        for row, exact in known.items():
            world[row] = exact
        zoom = data.base_focal / scene.focal
        depth, confidence = [], []
        for row, (view, anchors) in enumerate(zip(members, scene.depth.split(data.anchors_per_view), strict=True)):
            depth.append(_positive(self.canonical[view].depth_on(anchors, zoom[row])))
            confidence.append(_confidence(self.canonical[view]))
        return SparseAlignment(members, world, scene.intrinsics, depth, confidence, solution.loss, matches)

    def _unit(self, members: Sequence[int], solution: SparseSolution) -> float:
        """Geometric mean, over all maps of all views, of the world length of a unit of the map's prediction."""
        logs = [
            log_size + self.canonical[view].scales.log()
            for view, log_size in zip(members, solution.log_size, strict=True)
        ]
        return float(torch.cat(logs).mean().exp())


def _placed(scene: SparseScene, unit: float, row: int, pose: Float[Tensor, "4 4"]) -> SparseScene:
    """The scene in another unit, moved so that one camera has the given pose."""
    world = scene.world_from_camera.clone()
    world[:, :3, 3] /= unit
    return SparseScene(scene.intrinsics, pose @ invert_rigid(world[row]) @ world, scene.depth / unit)


def _fix_poses(start: SparseStart, known: Mapping[int, Tensor]) -> SparseStart:
    """Move and scale the start to where it fits two or more known cameras best, and those cameras to where they are."""
    rows, targets = torch.tensor(list(known)), torch.stack(list(known.values()))
    scale, rotation, translation = fit_camera_similarity(start.world_from_camera[rows], targets)
    poses = move_camera(scale, rotation, translation, start.world_from_camera)
    poses[rows] = targets
    return SparseStart(poses, start.log_size + scale.log(), start.intrinsics, start.consistent)


def _positive(depth: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """Depth, with the smallest possible where there is none."""
    return torch.where(depth.isfinite(), depth, torch.zeros_like(depth)).clamp(min=LEAST_DEPTH)


def _confidence(view: CanonicalView) -> Float[Tensor, "height width"]:
    """Confidence at the models' scale: at least 1, and 1 where there is no usable depth."""
    usable = view.points[..., 2].isfinite() & (view.points[..., 2] > 0) & view.relative_depth.isfinite()
    return torch.where(usable, 1 + view.confidence, torch.ones_like(view.confidence))
