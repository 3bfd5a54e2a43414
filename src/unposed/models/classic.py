"""The weight-free pair model: SIFT, robust two-view geometry with one focal for the collection, and plane sweep.

It answers like a network of the DUSt3R family (two pointmaps in one frame, confidences of at least 1), so that every
task runs on photos without trained weights. Lengths of a pair are in units of its baseline.
"""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unposed.geometry.cameras import intrinsics_matrix, pointmap_from_depth
from unposed.geometry.essential import SIGNIFICANCE, TwoView
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.hardware import in_parallel
from unposed.io.resize import ImageRule
from unposed.models import sift
from unposed.models.base import FocalEstimate, PairMatches
from unposed.models.plane_sweep import sweep_both
from unposed.models.two_view import FOCAL_SPREAD, consensus_focal, estimate_two_view
from unposed.views import Matches, Pair, PairPrediction, View

TOP_CONFIDENCE = 10.0
"""Confidence of a pixel with full support in a pair with many matches and a wide baseline."""
MANY_INLIERS = 150
WIDE_ANGLE = math.radians(4)
EXIF_SPREAD = 0.05
"""How far (standard deviation of the logarithm) a focal length told by EXIF is believed."""
NOTHING = torch.zeros(0, 2, dtype=torch.long)
"""The matches of a photo with itself, which say nothing of its depth."""
FEW_PAIRS = 3
"""Cameras seen by fewer pairs of their own share one focal with all others of that kind."""

_Result = TypeVar("_Result")


class Classic:
    """Weight-free ``PairModel``."""

    name = "classic"
    image_rule = ImageRule(size=640)
    metric = False

    def encode(self, views: Sequence[View]) -> list[sift.Keypoints]:
        """Keypoints of each view."""
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return list(pool.map(lambda view: sift.detect(view.image), views))

    def match(self, a: sift.Keypoints, b: sift.Keypoints) -> Int[Tensor, "n 2"]:
        """Index pairs of keypoints of two views that look alike."""
        return sift.match(a, b)

    def expected_depth(self, view: View) -> Float[Tensor, "rows columns"]:
        """Nothing: the logarithm of a depth that is the same everywhere."""
        return torch.zeros(1, 1)

    def _match_all(self, features: Sequence[sift.Keypoints], pairs: Sequence[Pair]) -> dict[Pair, Int[Tensor, "n 2"]]:
        """What ``match`` finds for each pair, one pair a processor."""
        found = in_parallel(lambda pair: self.match(features[pair[0]], features[pair[1]]), pairs)
        return dict(zip(pairs, found, strict=True))

    def estimate_focals(self, views: Sequence[View], pairs: Sequence[Pair]) -> list[FocalEstimate]:
        """Focal length of each view, by the matches of the pairs; EXIF is hardly believed, so as to check it."""
        features = self.encode(views)
        unordered = {(min(i, j), max(i, j)) for i, j in pairs if i != j}
        matches = self._match_all(features, sorted(unordered))
        return agree_on_focals(views, _matched_points(features, matches), exif_spread=FOCAL_SPREAD)

    def decode(
        self, views: Sequence[View], features: Sequence[sift.Keypoints], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairPrediction]]:
        """Predictions for ordered pairs; the pairs agree on focals first, (i, j) and (j, i) share work."""
        asked: dict[Pair, list[Pair]] = defaultdict(list)
        for i, j in pairs:
            asked[min(i, j), max(i, j)].append((i, j))
        solve = self._solver(_solve, views, features, asked)
        for pair, solved in zip(asked, _ahead(solve, asked), strict=True):
            for order in dict.fromkeys(asked[pair]):
                yield order, solved.prediction(swapped=order != pair)

    def match_pairs(
        self, views: Sequence[View], features: Sequence[sift.Keypoints], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairMatches]]:
        """The matches that predictions carry, without the plane sweep."""
        ordered = [(min(i, j), max(i, j)) for i, j in pairs]
        solve = self._solver(_find_geometry, views, features, ordered)
        for pair, found in zip(pairs, _ahead(solve, ordered), strict=True):
            swapped = pair[0] > pair[1]
            focals = found.focals[::-1] if swapped else found.focals
            yield pair, PairMatches(found.matches.swapped() if swapped else found.matches, focals, verified=True)

    def _solver(
        self,
        solve: Callable[["_Question"], _Result],
        views: Sequence[View],
        features: Sequence[sift.Keypoints],
        pairs: Iterable[Pair],
    ) -> Callable[[Pair], _Result]:
        """``solve`` for a pair of indices; the pairs have agreed on focals."""
        matches = self._match_all(features, [(i, j) for i, j in pairs if i != j])
        focals = [estimate.focal for estimate in agree_on_focals(views, _matched_points(features, matches))]

        def solve_pair(pair: Pair) -> _Result:
            i, j = pair
            found = matches.get(pair, NOTHING)
            return solve(_Question(views[i], views[j], features[i], features[j], (focals[i], focals[j]), found))

        return solve_pair


def _matched_points(
    features: Sequence[sift.Keypoints], matches: Mapping[Pair, Int[Tensor, "n 2"]]
) -> dict[Pair, tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]]:
    """Pixels of matched keypoints in both views of every pair."""
    return {
        (i, j): (features[i].points[found[:, 0]], features[j].points[found[:, 1]]) for (i, j), found in matches.items()
    }


def _ahead(function: Callable[[Pair], _Result], pairs: Iterable[Pair]) -> Iterator[_Result]:
    """Results in order, worked out by one thread per processor, never more than a few ahead of who asks for them."""
    workers = torch.get_num_threads()
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_Result]] = deque()
        for pair in pairs:
            waiting.append(pool.submit(function, pair))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(frozen=True, eq=False)
class _Solved:
    """What is known of an unordered pair: a pointmap of each view in its own camera, and the pose between them."""

    points_i: Float[Tensor, "height_i width_i 3"]
    points_j: Float[Tensor, "height_j width_j 3"]
    confidence_i: Float[Tensor, "height_i width_i"]
    confidence_j: Float[Tensor, "height_j width_j"]
    j_from_i: Float[Tensor, "4 4"]
    matches: Matches

    def prediction(self, swapped: bool) -> PairPrediction:
        """The pair as seen from camera i or, swapped, from camera j."""
        if swapped:
            return PairPrediction(
                self.points_j,
                transform_points(self.j_from_i, self.points_i),
                self.confidence_j,
                self.confidence_i,
                matches=self.matches.swapped(),
            )
        return PairPrediction(
            self.points_i,
            transform_points(invert_rigid(self.j_from_i), self.points_j),
            self.confidence_i,
            self.confidence_j,
            matches=self.matches,
        )


@dataclass(frozen=True, eq=False)
class _Question:
    """An unordered pair to solve."""

    view_i: View
    view_j: View
    keypoints_i: sift.Keypoints
    keypoints_j: sift.Keypoints
    focals: tuple[float, float]
    found: Int[Tensor, "n 2"]
    """Keypoints that look alike."""


@dataclass(frozen=True, eq=False)
class _Geometry:
    """How two views stand to each other."""

    pose: TwoView | None
    """None where chance would explain the matches too."""
    matches: Matches
    """Those that obey the pose."""
    focals: tuple[float, float]


def _find_geometry(pair: _Question) -> _Geometry:
    """Pose by the given matches."""
    candidates = _matches(pair.keypoints_i, pair.keypoints_j, pair.found)
    pose = estimate_two_view(candidates.points_a, candidates.points_b, pair.view_i.size, pair.view_j.size, *pair.focals)
    if pose is None or pose.significance < SIGNIFICANCE:
        return _Geometry(None, _matches(pair.keypoints_i, pair.keypoints_j, pair.found[:0]), pair.focals)
    return _Geometry(pose, _matches(pair.keypoints_i, pair.keypoints_j, pair.found[pose.inliers]), pair.focals)


def _solve(pair: _Question) -> _Solved:
    """Pose by the given matches and depth by the pose; flat where no pose is found."""
    geometry = _find_geometry(pair)
    view_i, view_j, (focal_i, focal_j), pose = pair.view_i, pair.view_j, pair.focals, geometry.pose
    if pose is None or pose.rotation_only:
        turned = torch.eye(4) if pose is None else pose.j_from_i.float()
        return _flat(view_i, view_j, focal_i, focal_j, turned, geometry.matches)
    swept_i, swept_j = sweep_both(view_i.image, view_j.image, focal_i, focal_j, pose.j_from_i, pose.points)
    strength = _strength(pose)
    return _Solved(
        points_i=pointmap_from_depth(swept_i.depth, _intrinsics(view_i, focal_i)),
        points_j=pointmap_from_depth(swept_j.depth, _intrinsics(view_j, focal_j)),
        confidence_i=1 + strength * swept_i.support,
        confidence_j=1 + strength * swept_j.support,
        j_from_i=pose.j_from_i.float(),
        matches=geometry.matches,
    )


def _flat(
    view_i: View, view_j: View, focal_i: float, focal_j: float, j_from_i: Float[Tensor, "4 4"], matches: Matches
) -> _Solved:
    """Both views as the same distant plane, turned as the pose says, believed nowhere."""
    turned = j_from_i.clone()
    turned[:3, 3] = 0
    depth_i, depth_j = torch.ones(view_i.size), torch.ones(view_j.size)
    return _Solved(
        points_i=pointmap_from_depth(depth_i, _intrinsics(view_i, focal_i)),
        points_j=pointmap_from_depth(depth_j, _intrinsics(view_j, focal_j)),
        confidence_i=depth_i,
        confidence_j=depth_j,
        j_from_i=turned,
        matches=matches,
    )


def _strength(geometry: TwoView) -> float:
    """What full support adds to the confidence of a pair; almost nothing if its pose is unsafe."""
    return strength(len(geometry.points), float(geometry.angles.median())) if geometry.reliable else 0.01


def strength(points: int, angle: float) -> float:
    """What full support adds to the confidence: much for many common points seen under wide angles (radians)."""
    return (TOP_CONFIDENCE - 1) * min(1.0, points / MANY_INLIERS) * min(1.0, angle / WIDE_ANGLE)


def _intrinsics(view: View, focal: float) -> Float[Tensor, "3 3"]:
    height, width = view.size
    return intrinsics_matrix(focal, torch.tensor([(width - 1) / 2, (height - 1) / 2]))


def _matches(a: sift.Keypoints, b: sift.Keypoints, found: Int[Tensor, "n 2"]) -> Matches:
    """Matched keypoints; a keypoint has the same coordinates in every pair, so that tracks can be built from them."""
    confidence = (a.descriptors[found[:, 0]] * b.descriptors[found[:, 1]]).sum(-1)
    return Matches(a.points[found[:, 0]], b.points[found[:, 1]], confidence)


def camera_key(view: View) -> tuple[int, int, int]:
    """Equal for photos that are taken to come from one camera: the same size, whichever way up, and EXIF focal."""
    width, height = sorted(view.original_size)
    return width, height, round(view.exif_focal or 0)


def agree_on_focals(
    views: Sequence[View],
    points: Mapping[Pair, tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]],
    exif_spread: float = EXIF_SPREAD,
) -> list[FocalEstimate]:
    """Focal length of each view, one per camera.

    What the pairs within a camera (see ``camera_key``) say is pooled. Cameras with few pairs of their own share one
    factor on what EXIF tells, or, without EXIF, on the long side of the photo. ``exif_spread`` says how far EXIF is
    believed (standard deviation of the logarithm).
    """
    cameras = [camera_key(view) for view in views]
    own = Counter(cameras[i] for i, j in points if cameras[i] == cameras[j])
    groups = [
        c if own[c] >= FEW_PAIRS else (0, 0, int(bool(view.exif_focal))) for c, view in zip(cameras, views, strict=True)
    ]
    units = [(v.exif_focal or max(v.original_size)) / float(v.original_from_view[0, 0]) for v in views]
    agreed = {}
    for group in set(groups):
        pairs = [(i, j) for i, j in points if groups[i] == group and groups[j] == group]
        agreed[group] = consensus_focal(
            [points[pair] for pair in pairs],
            [(views[i].size, views[j].size) for i, j in pairs],
            [(units[i], units[j]) for i, j in pairs],
            prior_spread=exif_spread if group[2] else FOCAL_SPREAD,
        )
    return [
        FocalEstimate(agreed[group].share * unit, agreed[group].spread, agreed[group].votes)
        for group, unit in zip(groups, units, strict=True)
    ]
