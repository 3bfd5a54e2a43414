"""One query photo against a map: references by retrieval, matches, world points, PnP, and whether to believe it."""

import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.align.coarse_to_fine import WholePhoto, refine_by_crops, shrunk
from unposed.align.matching import joined, matches_of_pixels, pair_matches
from unposed.align.query_points import QueryPoints, query_points
from unposed.align.tracks import triangulated_tracks
from unposed.geometry.cameras import intrinsics_matrix, map_pixels
from unposed.geometry.pnp import PnPResult, solve_pnp, solve_pnp_unknown_focal
from unposed.geometry.resection import Resection, refine_resection, significance
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.io.photos import Photo
from unposed.models.base import MatchModel, PairModel
from unposed.models.inference import device_of
from unposed.models.retrieval import Retriever, find_retriever
from unposed.tasks.posed_map import PosedMap, Reference, Sparse, protocol_view, tracks_of_view
from unposed.views import Camera, Matches, Pair, PairPrediction, View

REPROJECTION_SHARE = 0.008
"""Largest reprojection error of an inlier, as a share of the photo's diagonal (DUSt3R's localisation commands)."""
MIN_SIGNIFICANCE = 10.0
"""A pose below this may be chance, see ``geometry.resection.significance``."""
MIN_INLIERS = 12
"""Pixels of the query that must agree on a pose."""
MAX_ROTATION_SIGMA = 2.0
"""Degrees that a believed rotation may be uncertain by."""
MAX_POSITION_SIGMA = 0.1
"""Share of the median depth of the inliers that a believed position may be uncertain by."""
EXIF_SPREAD = 0.05
"""How far (standard deviation of the logarithm) a focal length told by EXIF is believed."""
CENTRE_SPREAD = 0.01
"""About how far, as a share of the long side, a principal point that nobody measured is off the middle of the photo. It
turns the camera, and hardly moves it."""
_ITERATIONS = 10_000
_FEW_POINTS = 50  # below, the references are matched with each other too
_MATCHED_AMONG = 5  # references, so ten more pairs at most
_FOCAL_SEARCH_POINTS = 1000
_SAME_FOCAL = 0.02
_STRIDE = 4  # of the query's pixels that a dense model matches: ten times as many as PnP needs, spread evenly
_DESCRIPTOR_CONFIDENCE = 1.001  # of a match by descriptors (MASt3R's localisation tool)
_DENSE_CONFIDENCE = 3.0  # of pixels matched by nearest points (DUSt3R's localisation tool)
_KEPT_FEATURES = 64
_DESCRIBED_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Localisation:
    """Where a photo was taken."""

    name: str
    world_from_camera: Float[Tensor, "4 4"] | None
    """Pose in the world of the map, float64; None where the photo could not be placed reliably."""
    intrinsics: Float[Tensor, "3 3"]
    """K of the original photo, float64: what the pose was found with."""
    width: int
    height: int
    inliers: int
    """Pixels of the query whose world point the pose explains."""
    reliable: bool
    reason: str
    """Why the pose is not believed; empty when it is."""
    rotation_sigma: float | None
    """Standard deviation of the rotation in degrees (all three axes together)."""
    position_sigma: float | None
    """Standard deviation of the camera centre in units of the map (all three coordinates together)."""
    references: tuple[str, ...]
    """Photos of the map that see inliers, those with most first."""
    focal_source: str
    """``given``, ``map``, ``exif`` or ``estimated``."""
    metric: bool | None
    """Whether lengths are metres; None where the map does not say."""
    seconds: float

    @property
    def camera(self) -> Camera | None:
        """The camera of the original photo; None where it was not placed."""
        if self.world_from_camera is None:
            return None
        return Camera(self.intrinsics.float(), self.world_from_camera.float(), self.width, self.height)


@dataclass(frozen=True, eq=False)
class _Calibration:
    """Intrinsics of a query, how far the focal length is believed (spread of its logarithm), and who says so."""

    intrinsics: Tensor
    spread: float
    source: str


@dataclass(frozen=True, eq=False)
class _Solution:
    """A camera and how strongly the points speak for it."""

    resection: Resection
    calibration: _Calibration
    inliers: int
    significance: float
    depth: float
    """Median depth of the inliers."""

    @property
    def rotation_sigma(self) -> float:
        """Degrees, with what an unknown principal point adds to what the inliers leave."""
        if self.calibration.source == "map":
            return self.resection.rotation_sigma
        k = self.calibration.intrinsics  # the principal point is the middle
        angle = math.degrees(math.sqrt(2) * CENTRE_SPREAD * 2 * float(k[:2, 2].max()) / float(k[0, 0]))
        return math.hypot(self.resection.rotation_sigma, angle)


class Localizer:
    """A map that is ready for queries; views and features of the references it used last are kept in memory."""

    def __init__(
        self, posed_map: PosedMap, model: PairModel, *, top_k: int, focal: float | None = None, fine: bool = False
    ) -> None:
        """``focal``: of the queries, in pixels of their original photos; ``fine``: match crops too, see ``match``."""
        self.map, self.model, self.top_k, self.focal, self.fine = posed_map, model, top_k, focal, fine
        self._encoded: OrderedDict[int, tuple[View, Any]] = OrderedDict()
        self._descriptions: list[Any] | None = None
        self._retriever: Retriever | None = None

    def locate(self, photo: Photo) -> Localisation:
        """The camera of a photo.

        Raises:
            UserError: the photo or one of the map can no longer be read.
        """
        started = time.monotonic()
        view = protocol_view(photo, self.model.image_rule)
        calibration = self._calibration(view)
        view = replace(view, exif_focal=float(calibration.intrinsics[0, 0]))  # what the model starts from
        features = self.model.encode([view])[0]
        chosen = self._similar(view, features)
        found = self._points(photo, view, features, chosen)
        solution = _solve(found, calibration, view)
        reason = _doubt(found, solution)
        return Localisation(
            name=photo.name,
            world_from_camera=solution.resection.world_from_camera if solution and not reason else None,
            intrinsics=(solution.calibration if solution else calibration).intrinsics,
            width=photo.size[0],
            height=photo.size[1],
            inliers=solution.inliers if solution else 0,
            reliable=not reason,
            reason=reason,
            rotation_sigma=solution.rotation_sigma if solution else None,
            position_sigma=solution.resection.position_sigma if solution else None,
            references=self._supporting(found, solution, chosen) if solution else (),
            focal_source=(solution.calibration if solution else calibration).source,
            metric=self.map.metric,
            seconds=time.monotonic() - started,
        )

    def _calibration(self, view: View) -> _Calibration:
        """The focal length by the first of: what the user says, the map's camera of that kind, EXIF, a guess."""
        width, height = view.original_size
        centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
        if self.focal is not None:
            return _Calibration(intrinsics_matrix(self.focal, centre), 0.0, "given")
        same = [r for r in self.map.references if r.of_same_kind(view)]
        if same:
            all_intrinsics = torch.stack([r.camera.intrinsics.double() for r in same])
            focals = all_intrinsics[:, 0, 0]
            if float(focals.max() / focals.min()) < 1 + _SAME_FOCAL:
                return _Calibration(all_intrinsics.quantile(0.5, dim=0), 0.0, "map")
        if view.exif_focal is not None:
            return _Calibration(intrinsics_matrix(view.exif_focal, centre), EXIF_SPREAD, "exif")
        shares = [float(r.camera.intrinsics[0, 0]) / max(r.camera.width, r.camera.height) for r in self.map.references]
        share = float(torch.tensor(shares).quantile(0.5))
        return _Calibration(intrinsics_matrix(share * max(width, height), centre), math.inf, "estimated")

    def _similar(self, view: View, features: Any) -> list[int]:
        """References to match with, most similar first; all of them where there are no more than asked for."""
        count = len(self.map.references)
        if count <= self.top_k:
            return list(range(count))
        if self._retriever is None:
            self._retriever = find_retriever(self.model)
        if self._descriptions is None:
            self._descriptions = []
            for start in range(0, count, _DESCRIBED_AT_ONCE):
                some = self.map.references[start : start + _DESCRIBED_AT_ONCE]
                self._descriptions += self._retriever.describe([r.view(self.model.image_rule) for r in some])
        query = self._retriever.describe([view], [features])
        similarity = self._retriever.similarity(query, self._descriptions)[0]
        return similarity.topk(self.top_k).indices.tolist()

    def _points(self, photo: Photo, view: View, features: Any, chosen: Sequence[int]) -> QueryPoints:
        """World points for the pixels of the query that match the chosen references."""
        encoded = [self._encode(k) for k in chosen]
        views, all_features = [view, *(v for v, _ in encoded)], [features, *(f for _, f in encoded)]
        references = [self.map.references[k] for k in chosen]
        pairs = [(0, k + 1) for k in range(len(chosen))]
        by_pair = self._match(views, all_features, pairs, [reference.sparse for reference in references])
        matches = [by_pair[pair] for pair in pairs]
        if self.fine:
            matches = self._refined(photo, views, references, matches)
        found = self._joined(view, views[1:], references, matches)
        if len(found.feature.unique()) < _FEW_POINTS and sum(len(each.confidence) > 0 for each in matches) > 1:
            references = self._with_points(views[1:], all_features[1:], references, matches)
            found = self._joined(view, views[1:], references, matches)
        return found

    def _match(
        self,
        views: Sequence[View],
        features: Sequence[Any],
        pairs: Sequence[Pair],
        sparse: Sequence[Sparse | None] | None = None,
    ) -> dict[Pair, Matches]:
        """Matches of pairs; ``sparse`` are places (original pixels) of view j of each pair to find in view i."""
        if isinstance(self.model, MatchModel):
            return {pair: found.matches for pair, found in self.model.match_pairs(views, features, pairs)}
        wanted = dict(zip(pairs, sparse, strict=True)) if sparse else {}
        found = {}
        for pair, prediction in self.model.decode(views, features, pairs):
            places = wanted.get(pair)
            view_j = views[pair[1]]
            seeds = None if places is None else map_pixels(torch.linalg.inv(view_j.original_from_view), places[0])
            found[pair] = _matches(prediction, seeds, device_of(self.model))
        return found

    def _refined(
        self, photo: Photo, views: Sequence[View], references: Sequence[Reference], matches: Sequence[Matches]
    ) -> list[Matches]:
        """The query's matches with every reference, made again between crops where photos are larger than views."""
        query = WholePhoto(views[0], photo.load())

        def match_crops(crops: Sequence[View], pairs: Sequence[Pair]) -> Iterable[tuple[Pair, Matches]]:
            return self._match(crops, self.model.encode(crops), pairs).items()

        refined = []
        for view, reference, found in zip(views[1:], references, matches, strict=True):
            if shrunk(query.view, view):
                other = WholePhoto(view, reference.load())
                found = refine_by_crops(found, query, other, self.model.image_rule, match_crops)
            refined.append(found)
        return refined

    def _joined(
        self, view: View, views: Sequence[View], references: Sequence[Reference], matches: Sequence[Matches]
    ) -> QueryPoints:
        lifted = [
            reference.lift(map_pixels(v.original_from_view, each.points_b.double()))
            for reference, v, each in zip(references, views, matches, strict=True)
        ]
        return query_points(view, views, [reference.camera for reference in references], matches, lifted)

    def _with_points(
        self,
        views: Sequence[View],
        features: Sequence[Any],
        references: Sequence[Reference],
        matches: Sequence[Matches],
    ) -> list[Reference]:
        """The references with sparse points from matches among those few that match the query best."""
        best = sorted(range(len(views)), key=lambda k: -len(matches[k].confidence))[:_MATCHED_AMONG]
        best = sorted(k for k in best if len(matches[k].confidence))
        pairs = list(itertools.combinations(range(len(best)), 2))
        best_views, best_features = [views[k] for k in best], [features[k] for k in best]
        found = self._match(best_views, best_features, pairs)
        tracks = triangulated_tracks(found, best_views, [references[k].camera for k in best])
        result = list(references)
        for n, k in enumerate(best):
            result[k] = references[k].with_sparse(*tracks_of_view(tracks, n))
        return result

    def _encode(self, k: int) -> tuple[View, Any]:
        """View and features of a reference; those used last are kept."""
        if k in self._encoded:
            self._encoded.move_to_end(k)
            return self._encoded[k]
        reference = self.map.references[k]
        view = replace(reference.view(self.model.image_rule), exif_focal=float(reference.camera.intrinsics[0, 0]))
        self._encoded[k] = view, self.model.encode([view])[0]
        if len(self._encoded) > max(_KEPT_FEATURES, 2 * self.top_k):
            self._encoded.popitem(last=False)
        return self._encoded[k]

    def _supporting(self, found: QueryPoints, solution: _Solution, chosen: Sequence[int]) -> tuple[str, ...]:
        """Names of the references that see inliers, those with most first."""
        explained = found.feature[solution.resection.inliers].unique()
        seen = [int(torch.isin(features, explained).sum()) for features in found.seen]
        order = sorted((k for k in range(len(chosen)) if seen[k]), key=lambda k: -seen[k])
        return tuple(self.map.references[chosen[k]].name for k in order)


def _matches(prediction: PairPrediction, seeds: Float[Tensor, "n 2"] | None, device: torch.device) -> Matches:
    """Matches of a pair; by descriptors that can be trusted, also of ``seeds``, pixels of the second view.

    Of pixels matched by nearest points only confident ones.
    """
    if prediction.matches is not None:
        return prediction.matches
    if prediction.descriptors_i is None:
        return pair_matches(prediction, stride=_STRIDE, min_confidence=_DENSE_CONFIDENCE)
    found = pair_matches(prediction, stride=_STRIDE, device=device)
    if seeds is not None:
        found = joined(found, matches_of_pixels(prediction, seeds, device=device))
    return found.where(found.confidence >= _DESCRIPTOR_CONFIDENCE)


def _solve(found: QueryPoints, calibration: _Calibration, view: View) -> _Solution | None:
    """The best camera; where an assumed focal length explains less than half of the points, any other is tried too."""
    if math.isinf(calibration.spread):
        return _solve_with(found, calibration, view)
    solution = _solve_with(found, calibration, view)
    explained = 0 if solution is None else solution.inliers
    if calibration.source != "given" and 2 * explained < len(found.feature.unique()):
        free = _solve_with(found, _Calibration(calibration.intrinsics, math.inf, "estimated"), view)
        if free is not None and free.inliers > 1.2 * explained:
            return free
    return solution


def _solve_with(found: QueryPoints, calibration: _Calibration, view: View) -> _Solution | None:
    """RANSAC over the points of all references, then refinement; None where no pose is found."""
    width, height = view.original_size
    limit = REPROJECTION_SHARE * math.hypot(width, height)
    intrinsics = calibration.intrinsics
    pnp: PnPResult | None
    if math.isinf(calibration.spread):
        some = torch.linspace(0, len(found.points) - 1, min(len(found.points), _FOCAL_SEARCH_POINTS)).long()
        pnp = solve_pnp_unknown_focal(found.pixels[some], found.points[some], intrinsics[:2, 2], (height, width), limit)
    else:
        pnp = solve_pnp(found.pixels, found.points, intrinsics, limit, _ITERATIONS)
    if pnp is None:
        return None
    refined = refine_resection(
        found.pixels,
        found.points,
        pnp.intrinsics,
        pnp.world_from_camera,
        (height, width),
        limit,
        calibration.spread,
    )
    if refined is None:
        return None
    inliers = len(found.feature[refined.inliers].unique())
    return _Solution(
        resection=refined,
        calibration=replace(calibration, intrinsics=refined.intrinsics),
        inliers=inliers,
        significance=significance(len(found.feature.unique()), inliers, limit, (height, width)),
        depth=_median_depth(refined, found.points),
    )


def _median_depth(refined: Resection, points: Tensor) -> float:
    local = transform_points(invert_rigid(refined.world_from_camera), points[refined.inliers])
    return float(local[:, 2].median())


def _doubt(found: QueryPoints, solution: _Solution | None) -> str:
    """Why a pose cannot be believed; empty where it can."""
    matched = sum(len(features) for features in found.seen)
    if matched == 0:
        return "no photo of the map shows what the query shows"
    if len(found.points) == 0:
        return "the map has no 3D where the query matches it: no depth there, and no place that two of its photos see"
    if solution is None or solution.inliers < MIN_INLIERS:
        return f"fewer than {MIN_INLIERS} matched places agree on a pose"
    if solution.significance < MIN_SIGNIFICANCE:
        return "so many matched places may agree on a pose by chance"
    if solution.rotation_sigma > MAX_ROTATION_SIGMA:
        return f"the matched places leave the rotation uncertain by {solution.rotation_sigma:.1f} degrees"
    share = solution.resection.position_sigma / solution.depth
    if share > MAX_POSITION_SIGMA:
        return f"the matched places leave the position uncertain by {share:.0%} of the distance to what is seen"
    return ""
