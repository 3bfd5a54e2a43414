"""Focal length and principal point of photos, and how well they are known."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.align.graph import make_pairs
from unposed.errors import UserError
from unposed.geometry.calibration import fit_pinhole
from unposed.geometry.cameras import intrinsics_matrix, map_pixels, pixel_grid
from unposed.io.photos import make_views
from unposed.models.base import FocalModel, PairModel
from unposed.models.classic import camera_key
from unposed.models.inference import predict_pairs
from unposed.tasks.inputs import PhotosLike, as_model, as_photos, is_one_photo
from unposed.tasks.progress import Reporter, Silent, track
from unposed.views import Pair, PairPrediction, View

PrincipalPoint = Literal["centre", "free"]
Method = Literal["two-view", "pointmap", "exif", "prior"]

COMPLETE_UP_TO = 12
"""Photos up to which every pair is asked; of more, each is paired with a few others (a logarithmic window)."""
_MAP_SAMPLES = 3000
"""Pixels of a pointmap that are used."""
_BLOCKS = 4
"""A pointmap is cut into so many columns and rows, to see how far its parts agree."""
_ENOUGH_MAPS = 3
"""Pointmaps of one camera from which on their agreement says more than that of their parts."""


@dataclass(frozen=True, eq=False)
class Intrinsics:
    """The pinhole camera of one photo, in its own pixels (after EXIF rotation)."""

    name: str
    """Name of the photo in its set."""
    intrinsics: Float[Tensor, "3 3"]
    """K; square pixels; pixel (0, 0) is the centre of the top-left pixel."""
    width: int
    height: int
    spread: float
    """How far the focal length may be off, as a share of itself (about one standard deviation)."""
    method: Method
    """What it comes from: ``two-view`` (matches between photos), ``pointmap`` (a network's pointmaps), ``exif`` (the
    file says so and the photos say nothing) or ``prior`` (nobody says anything: a guess)."""
    votes: int
    """Pairs of photos, or pointmaps, that had a say."""
    exif_focal: float | None
    """What EXIF tells, in pixels of the photo; None where it tells nothing."""

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return float(self.intrinsics[0, 0])

    @property
    def principal_point(self) -> tuple[float, float]:
        """(x, y) in pixels."""
        return float(self.intrinsics[0, 2]), float(self.intrinsics[1, 2])

    @property
    def fov_deg(self) -> tuple[float, float]:
        """Horizontal and vertical field of view in degrees, from edge to edge of the photo."""
        sides = zip(self.principal_point, (self.width, self.height), strict=True)
        return tuple(
            math.degrees(math.atan((centre + 0.5) / self.focal) + math.atan((side - 0.5 - centre) / self.focal))
            for centre, side in sides
        )  # type: ignore[return-value]

    @property
    def exif_disagreement(self) -> float | None:
        """Found over EXIF's focal length, less 1."""
        return None if self.exif_focal is None else self.focal / self.exif_focal - 1

    def facts(self) -> dict[str, Any]:
        """Everything as plain numbers and lists, for JSON."""
        return {
            "intrinsics": self.intrinsics.tolist(),
            "focal": self.focal,
            "principal_point": list(self.principal_point),
            "fov_deg": list(self.fov_deg),
            "width": self.width,
            "height": self.height,
            "exif_focal": self.exif_focal,
            "exif_disagreement": self.exif_disagreement,
            "method": self.method,
            "spread": self.spread,
            "votes": self.votes,
        }


def intrinsics(
    photos: PhotosLike,
    *,
    model: str | PairModel = "auto",
    principal_point: PrincipalPoint = "centre",
    frames: int | None = None,
    every: int | None = None,
    device: str = "auto",
    report: Reporter | None = None,
) -> Intrinsics | list[Intrinsics]:
    """Focal length, principal point and field of view of one photo, or of several at once.

    Photos of the same size (whichever way up) and EXIF focal length are taken to come from one camera and share one
    focal length. The offline models read it from matches between overlapping photos; networks from their pointmaps, so
    also from a single photo. EXIF stands beside the answer and does not decide it.

    Args:
        photos: one photo (a file, a Pillow picture, an array height x width x 3 of uint8), or several: a folder, a
            glob pattern, a video or a list.
        model: a registered name, a path to a released file, a loaded model, or ``auto``.
        principal_point: ``centre`` of the photo, or ``free``: solved for too, which needs a model with pointmaps of
            its own.
        frames, every: of a video, how many frames evenly spread, or every n-th.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        report: where progress and warnings go; nowhere by default.

    Returns:
        For one photo its intrinsics; else a list in natural order of the names.

    Raises:
        UserError: no usable photo, an unknown model or choice, or one that the model cannot fulfil.
    """
    results = estimate_intrinsics(
        photos,
        model=model,
        principal_point=principal_point,
        frames=frames,
        every=every,
        device=device,
        report=report,
    )
    return results[0] if is_one_photo(photos) else results


def estimate_intrinsics(
    photos: PhotosLike,
    *,
    model: str | PairModel = "auto",
    principal_point: PrincipalPoint = "centre",
    frames: int | None = None,
    every: int | None = None,
    device: str = "auto",
    report: Reporter | None = None,
) -> list[Intrinsics]:
    """What ``intrinsics`` gives, as a list for one photo too. Raises as it does."""
    if principal_point not in get_args(PrincipalPoint):
        raise UserError(f"there is no principal point called {principal_point}; choose centre or free")
    report = report or Silent()
    found = as_photos(photos, frames=frames, every=every)
    for skipped in found.skipped:
        report.say(f"skipped {skipped.name}: {skipped.reason}")
    loaded = as_model(model, device, report)
    views = make_views(found.photos, loaded.image_rule)
    if isinstance(loaded, FocalModel):
        if principal_point == "free":
            raise UserError(
                f"{loaded.name} takes the principal point to be the centre of the photo: leave it there, or use a "
                "network that predicts pointmaps (see `unposed models`)."
            )
        results = _by_matches(views, loaded)
    else:
        results = _by_pointmaps(views, loaded, principal_point == "free", report)
    guessed = [result.name for result in results if result.method == "prior"]
    if guessed:
        report.say(f"nothing tells the focal length of {', '.join(guessed)}: it is a guess")
    return results


def _pairs(count: int) -> list[Pair]:
    """Ordered pairs, both ways round; one photo is paired with itself (DUSt3R, section 3.3)."""
    if count == 1:
        return [(0, 0)]
    return make_pairs("complete" if count <= COMPLETE_UP_TO else "logwin-3-noncyclic", count)


def _by_matches(views: Sequence[View], model: FocalModel) -> list[Intrinsics]:
    results = []
    for view, estimate in zip(views, model.estimate_focals(views, _pairs(len(views))), strict=True):
        method: Method = "two-view" if estimate.votes else "exif" if view.exif_focal else "prior"
        focal = estimate.focal * float(view.original_from_view[0, 0])
        results.append(_result(view, focal, _centre(view), estimate.spread, method, estimate.votes))
    return results


def _by_pointmaps(views: Sequence[View], model: PairModel, free: bool, report: Reporter) -> list[Intrinsics]:
    """One fit for all pointmaps of a camera, each in the frame of the photo that it belongs to."""
    pairs = _pairs(len(views))
    maps: dict[int, list[_Rays]] = defaultdict(list)
    predictions = predict_pairs(model, views, pairs)
    for (i, _), prediction in track(report, predictions, len(pairs), f"{model.name}: pairs of views"):
        maps[i].append(_rays(views[i], prediction))
    cameras: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for k, view in enumerate(views):
        cameras[(*camera_key(view), *(view.original_size if free else ()))].append(k)
    results: dict[int, Intrinsics] = {}
    for members in cameras.values():
        mine = [one for k in members for one in maps[k]]
        centre = None if free else torch.zeros(2)
        focal, offset = _fit(mine, centre)
        if not 0 < focal < math.inf:
            raise UserError(f"{model.name} gives no pointmap of {views[members[0]].name} to tell the focal length by.")
        spread = _spread(mine, offset)
        for k in members:
            results[k] = _result(views[k], focal, _centre(views[k]) + offset, spread, "pointmap", len(mine))
    return [results[k] for k in range(len(views))]


@dataclass(frozen=True, eq=False)
class _Rays:
    """A few pixels of a pointmap."""

    pixels: Float[Tensor, "rows columns 2"]
    """In the original photo, counted from its centre."""
    points: Float[Tensor, "rows columns 3"]
    """In the frame of its camera."""
    weight: Float[Tensor, "rows columns"]


def _rays(view: View, prediction: PairPrediction) -> _Rays:
    """Every so many pixels of the first view's map, weighted by the logarithm of the confidence."""
    height, width = view.size
    stride = max(1, math.isqrt(height * width // _MAP_SAMPLES))
    pixels = map_pixels(view.original_from_view, pixel_grid(height, width, dtype=torch.float64)) - _centre(view)
    weight = prediction.confidence_i.log().clamp(min=0) + 1e-3  # of a map without any confidence all pixels count
    return _Rays(*(values[::stride, ::stride] for values in (pixels, prediction.points_i, weight)))


def _fit(maps: Iterable[_Rays], centre: Float[Tensor, "2"] | None) -> tuple[float, Float[Tensor, "2"]]:
    """Focal and principal point (counted from the photo's centre) of all maps together."""
    flat = [(one.pixels.reshape(-1, 2), one.points.reshape(-1, 3), one.weight.flatten()) for one in maps]
    pixels, points, weight = (torch.cat(list(column)) for column in zip(*flat, strict=True))
    return fit_pinhole(pixels, points, weight, centre)


def _spread(maps: Sequence[_Rays], centre: Float[Tensor, "2"]) -> float:
    """How far single votes for the focal lie apart: of the maps, over the root of their number, or of a map's blocks.

    Blocks of one prediction share its error, so that their number makes it no smaller.
    """
    if len(maps) >= _ENOUGH_MAPS:
        return _deviation([_fit([one], centre)[0] for one in maps]) / math.sqrt(len(maps))
    return _deviation([_fit([block], centre)[0] for one in maps for block in _blocks(one)])


def _blocks(rays: _Rays) -> list[_Rays]:
    columns = [values.tensor_split(_BLOCKS, 1) for values in (rays.pixels, rays.points, rays.weight)]
    return [
        _Rays(*block)
        for column in zip(*columns, strict=True)
        for block in zip(*(values.tensor_split(_BLOCKS, 0) for values in column), strict=True)
    ]


def _deviation(focals: Sequence[float]) -> float:
    """Robust standard deviation relative to the median: 1.4826 times the median absolute deviation."""
    votes = torch.tensor([focal for focal in focals if 0 < focal < math.inf], dtype=torch.float64)
    return 1.4826 * float((votes / votes.median() - 1).abs().median()) if len(votes) else math.nan


def _centre(view: View) -> Float[Tensor, "2"]:
    """Centre of the original photo, in its pixels."""
    return (torch.tensor(view.original_size, dtype=torch.float64) - 1) / 2


def _result(view: View, focal: float, centre: Tensor, spread: float, method: Method, votes: int) -> Intrinsics:
    width, height = view.original_size
    k = intrinsics_matrix(focal, centre.double()).float()
    return Intrinsics(view.name, k, width, height, spread, method, votes, view.exif_focal)
