"""Matching pixels of two photos, or of all pairs of a collection."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.align.coarse_to_fine import WholePhoto, refine_by_crops, shrunk
from unposed.align.keypoints import Keypoints, merge_keypoints, one_to_one
from unposed.align.matching import predict_matches
from unposed.errors import UserError
from unposed.geometry.cameras import intrinsics_matrix, map_pixels
from unposed.geometry.essential import fundamental_inliers, solve_essential
from unposed.io.atomic import atomic_write
from unposed.io.hloc import features_path, write_features, write_matches
from unposed.io.match_picture import draw_matches
from unposed.io.photos import Photo, find_photos, make_views
from unposed.io.preview import write_png
from unposed.io.sources import Source
from unposed.models.base import MatchModel, PairMatches, PairModel
from unposed.tasks.inputs import PhotoLike, as_model, as_photo
from unposed.tasks.pairs import pairs_of_views
from unposed.tasks.progress import Reporter, Silent, track
from unposed.views import Matches, Pair, View

Verify = Literal["fundamental", "essential", "none"]

NEIGHBOUR_ERROR = 1.5
"""Epipolar distance in view pixels up to which matched neighbours are believed, which may lie on whole pixels."""
PRECISE_ERROR = 1.0
"""The same for sub-pixel matches (a model's own verified ones, or of crops), in pixels of a view 640 long."""

Refiner = Callable[[Matches], Matches]


@dataclass(frozen=True, eq=False)
class PhotoMatches:
    """Corresponding pixels of two photos."""

    points_a: Float[Tensor, "n 2"]
    """Pixels (x, y) of the ORIGINAL photo a, sub-pixel, (0, 0) the centre of the top-left pixel."""
    points_b: Float[Tensor, "n 2"]
    """The same places in photo b."""
    confidence: Float[Tensor, "n"]
    """Larger is better; the model's own scale."""
    photo_a: Photo
    photo_b: Photo
    found: int
    """Matches before geometric verification."""
    verified: int | None
    """Matches that one epipolar geometry explains, all that are left; None where nobody verified them."""
    model: str

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two photos."""
        return self.photo_a.name, self.photo_b.name

    @property
    def sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(width, height) of the two photos."""
        return self.photo_a.size, self.photo_b.size

    def save(self, path: str | Path) -> None:
        """Write ``points_a``, ``points_b``, ``confidence``, ``names`` and ``sizes`` as a NumPy .npz file.

        Raises:
            UserError: another suffix, or a place that cannot be written.
        """
        if Path(path).suffix != ".npz":
            raise UserError(f"the matches of two photos are saved as .npz, not {Path(path).name}: change the suffix.")
        with atomic_write(path) as temporary:
            np.savez_compressed(
                temporary,
                points_a=self.points_a.numpy(),
                points_b=self.points_b.numpy(),
                confidence=self.confidence.numpy(),
                names=np.array(self.names),
                sizes=np.array(self.sizes),
            )

    def picture(self) -> Tensor:
        """Both photos side by side with lines between up to 100 matches: height x width x 3, uint8 RGB."""
        a, b = (torch.from_numpy(np.array(photo.load())) for photo in (self.photo_a, self.photo_b))
        return draw_matches(a, b, self.points_a, self.points_b, self.confidence)

    def save_picture(self, path: str | Path) -> None:
        """Write ``picture`` as .png or .jpg. Raises ``UserError`` for another suffix or an unwritable place."""
        check_picture_name(path)
        write_png(path, self.picture())


@dataclass(frozen=True, eq=False)
class CollectionMatches:
    """Keypoints of many photos, and matches between them."""

    photos: tuple[Photo, ...]
    keypoints: tuple[Float[Tensor, "n 2"], ...]
    """Of each photo, pixels (x, y) of the ORIGINAL photo: every place that a match of any pair uses, once."""
    matches: Mapping[Pair, Tensor]
    """By pair (i, j), i < j, of photos: n x 2 indices of keypoints of i and of j, none twice."""
    confidence: Mapping[Pair, Tensor]
    """The matches' confidences, in the same order; larger is better."""
    focals: tuple[float, ...]
    """Focal lengths, in pixels of the photos, that the model thinks they have."""
    found: int
    """Matches before geometric verification."""
    verified: int | None
    """Matches that an epipolar geometry explains; None where nobody verified them."""
    model: str

    def save(self, path: str | Path) -> list[Path]:
        """Write for other programs and say which files were written; the suffix tells the format.

        ``.h5`` is for hloc: this file of matches, and one of keypoints beside it whose name ends in ``-features.h5``.
        ``.db`` is a COLMAP database, ready for mapping when the matches are verified; an earlier one is replaced.

        Raises:
            UserError: another suffix, or a place that cannot be written.
        """
        path = Path(path)
        names, sizes = [photo.name for photo in self.photos], [photo.size for photo in self.photos]
        if path.suffix == ".h5":
            pairs = list(self.matches)
            write_features(features_path(path), names, sizes, self.keypoints)
            write_matches(
                path,
                [(names[i], names[j]) for i, j in pairs],
                [len(self.keypoints[i]) for i, _ in pairs],
                [self.matches[pair] for pair in pairs],
                [self.confidence[pair] for pair in pairs],
            )
            return [path, features_path(path)]
        if path.suffix == ".db":
            from unposed.io.colmap_database import write_database

            write_database(
                path,
                names,
                sizes,
                self.focals,
                self.keypoints,
                self.matches,
                one_camera=True,
                verified=self.verified is not None,
            )
            return [path]
        raise UserError(f"matches of a collection are saved as .h5 (hloc) or .db (COLMAP), not {path.name}.")


def check_picture_name(path: str | Path) -> None:
    """Raise ``UserError`` unless a picture can be written under that name."""
    if Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"the picture of the matches is a .png or .jpg, not {Path(path).name}: change the suffix.")


def match(
    a: PhotoLike,
    b: PhotoLike,
    *,
    model: str | Path | PairModel = "auto",
    verify: Verify = "fundamental",
    fine: bool = False,
    device: str = "auto",
    report: Reporter | None = None,
) -> PhotoMatches:
    """Pixels of two photos that show the same place.

    Args:
        a, b: files, Pillow pictures or arrays.
        model: a registered name, a path to a released file, a loaded model, or ``auto``.
        verify: keep what obeys one ``fundamental`` matrix (no calibration needed), one ``essential`` matrix (with the
            focal lengths the model finds), or all (``none``). Matches that a model has verified itself are kept.
        fine: where a photo is larger than the model's view, match again between crops at full resolution (MASt3R,
            section 3.4): as many times the work as there are crops. For networks; ``classic`` and ``mini`` find places
            to a fraction of a pixel anyway.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        report: where progress and warnings go; nowhere by default.

    Raises:
        UserError: a photo or model that cannot be used, or one that matches no crops.
    """
    report = report or Silent()
    photos = [as_photo(a, "a.png"), as_photo(b, "b.png")]
    loaded = as_model(model, device, report)
    if fine:
        check_fine(loaded)
    views = make_views(photos, loaded.image_rule)
    refine = _refiner(loaded, photos, views, report) if fine and shrunk(*views) else None
    found = match_views(loaded, views, [(0, 1)], verify, report, refine=refine)
    kept = found.matches[0, 1]
    return PhotoMatches(
        map_pixels(views[0].original_from_view, kept.points_a.double()).float(),
        map_pixels(views[1].original_from_view, kept.points_b.double()).float(),
        kept.confidence,
        photos[0],
        photos[1],
        found.found,
        found.verified,
        loaded.name,
    )


def match_photos(
    source: Source,
    *,
    model: str | Path | PairModel = "auto",
    graph: str = "auto",
    verify: Verify = "fundamental",
    device: str = "auto",
    report: Reporter | None = None,
) -> CollectionMatches:
    """Matches between all pairs of a collection, with one list of keypoints a photo, for hloc and COLMAP.

    Args:
        source: a folder, a glob pattern, or a list of photos.
        graph: pairs to match, as ``reconstruct`` has it: ``auto``, ``complete``, ``swin-3``, ... or a file of pairs.
        model, verify, device, report: as for ``match``.

    Raises:
        UserError: fewer than two usable photos, an unknown model or scene graph.
    """
    report = report or Silent()
    found = find_photos(source)
    for skipped in found.skipped:
        report.say(f"skipped {skipped.name}: {skipped.reason}")
    if len(found.photos) < 2:
        raise UserError(f"there is only one usable photo ({found.photos[0].name}): give two or more to match.")
    loaded = as_model(model, device, report)
    views = make_views(found.photos, loaded.image_rule)
    both_ways, features = pairs_of_views(graph, loaded, views, model, report)
    pairs = sorted({(min(pair), max(pair)) for pair in both_ways})
    matched = match_views(loaded, views, pairs, verify, report, features)
    return _collect(found.photos, views, matched, loaded.name)


def check_fine(model: PairModel) -> None:
    """Raise ``UserError`` where a model gains nothing from crops."""
    if isinstance(model, MatchModel):
        raise UserError(
            f"{model.name} finds matches to a fraction of a pixel by itself; fine matching is for networks such as "
            "mast3r: leave --fine out or give another --model."
        )


def _refiner(model: PairModel, photos: Sequence[Photo], views: Sequence[View], report: Reporter) -> Refiner:
    """Matches coarse ones again, crop by crop."""

    def match_crops(crops: Sequence[View], pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Matches]]:
        return ((pair, found.matches) for pair, found in predict_matches(model, crops, pairs))

    def refine(coarse: Matches) -> Matches:
        a, b = (WholePhoto(view, photo.load()) for view, photo in zip(views, photos, strict=True))
        told = functools.partial(report.update, f"{model.name}: pairs of crops")
        return refine_by_crops(coarse, a, b, model.image_rule, match_crops, told)

    return refine


@dataclass(frozen=True, eq=False)
class MatchedViews:
    """Matches of pairs of views, in their pixels."""

    matches: dict[Pair, Matches]
    focals: list[float]
    """Of each view, in its pixels, as the model tells."""
    found: int
    verified: int | None


def match_views(
    model: PairModel,
    views: Sequence[View],
    pairs: Sequence[Pair],
    verify: Verify,
    report: Reporter,
    features: Sequence[Any] | None = None,
    refine: Refiner | None = None,
) -> MatchedViews:
    """Matches of unordered pairs (i < j).

    ``features`` are those of all views, where the caller has them already; ``refine`` makes matches more precise.
    """
    if verify not in get_args(Verify):
        raise UserError(f"unknown verification {verify!r}: use {', '.join(get_args(Verify))}.")
    raw: dict[Pair, PairMatches] = {}
    focals: list[list[float]] = [[] for _ in views]
    predicted = predict_matches(model, views, pairs, features)
    for pair, found in track(report, predicted, len(pairs), f"{model.name}: pairs of photos"):
        raw[pair] = found if refine is None else replace(found, matches=refine(found.matches))
        for k, focal in zip(pair, found.focals, strict=True):
            focals[k].append(focal)
    median = [
        float(np.median(each)) if each else float(max(view.size)) for each, view in zip(focals, views, strict=True)
    ]
    kept = {pair: _verified(raw[pair], pair, views, median, verify, refine is not None) for pair in pairs}
    nobody = verify == "none" and not all(found.verified for found in raw.values())
    return MatchedViews(
        kept,
        median,
        sum(len(found.matches.confidence) for found in raw.values()),
        None if nobody else sum(len(found.confidence) for found in kept.values()),
    )


def centred_intrinsics(view: View, focal: float) -> Float[Tensor, "3 3"]:
    """K (float64) of a view with its principal point in the middle."""
    height, width = view.size
    return intrinsics_matrix(focal, torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64))


def epipolar_error(view_i: View, view_j: View, precise: bool) -> float:
    """Pixels of the views within which a match must obey an epipolar geometry."""
    return PRECISE_ERROR * max(*view_i.size, *view_j.size) / 640 if precise else NEIGHBOUR_ERROR


def _verified(
    raw: PairMatches, pair: Pair, views: Sequence[View], focals: Sequence[float], verify: Verify, precise: bool
) -> Matches:
    """The matches that one epipolar geometry explains; those that the model verified itself as they are."""
    found = raw.matches
    if raw.verified or verify == "none":
        return found
    i, j = pair
    limit = epipolar_error(views[i], views[j], precise)
    if verify == "fundamental":
        kept = fundamental_inliers(found.points_a, found.points_b, views[j].size, limit)
    else:
        k_i, k_j = centred_intrinsics(views[i], focals[i]), centred_intrinsics(views[j], focals[j])
        geometry = solve_essential(found.points_a, found.points_b, k_i, k_j, views[j].size, limit)
        kept = torch.zeros(len(found.confidence), dtype=torch.bool) if geometry is None else geometry.inliers
    return found.where(kept)


def _collect(photos: Sequence[Photo], views: Sequence[View], matched: MatchedViews, model: str) -> CollectionMatches:
    """Keypoints of the original photos, and matches that use each at most once a pair."""
    merged: Keypoints = merge_keypoints(matched.matches)
    keypoints = [
        map_pixels(view.original_from_view, merged.of_view(k).double()).float() for k, view in enumerate(views)
    ]
    indices, confidence = {}, {}
    for pair, found in matched.matches.items():
        links = merged.links_of_views(pair)
        kept = one_to_one(links, found.confidence)
        indices[pair], confidence[pair] = links[kept], found.confidence[kept]
    return CollectionMatches(
        tuple(photos),
        tuple(keypoints),
        indices,
        confidence,
        tuple(f * float(v.original_from_view[0, 0]) for f, v in zip(matched.focals, views, strict=True)),
        matched.found,
        None if matched.verified is None else sum(len(index) for index in indices.values()),
        model,
    )


def summary(matched: PhotoMatches | CollectionMatches, written: Sequence[Path]) -> dict[str, object]:
    """Facts for a person or a script; ``found`` and ``verified`` count matches."""
    facts: dict[str, object] = {"model": matched.model, "found": matched.found, "verified": matched.verified}
    if isinstance(matched, PhotoMatches):
        facts |= {"photos": list(matched.names), "matches": len(matched.confidence)}
    else:
        facts |= {
            "photos": len(matched.photos),
            "keypoints": sum(len(pixels) for pixels in matched.keypoints),
            "matches": sum(len(index) for index in matched.matches.values()),
            "pairs": len(matched.matches),
            "pairs_with_matches": sum(len(index) > 0 for index in matched.matches.values()),
        }
    return facts | {"written": [str(path) for path in written]}
