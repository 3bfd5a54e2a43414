"""Bundle adjustment of aligned cameras on matched tracks, kept only where it explains the matches better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unposed.align.tracks import triangulated_tracks
from unposed.geometry.cameras import map_pixels
from unposed.io.colmap import bundle_adjust
from unposed.views import Camera, Matches, Pair, Tracks, View

_ROUNDS = ((12.0, 1.0), (6.0, 1.0), (3.0, 1.5))  # (pixels, degrees): looser tracks first, so that rough poses find them
_FEWEST_POINTS = 20
_MOST_ZOOM = 1.5
"""A focal length that bundle adjustment moves by more than this factor has run away, as it does where the photos hardly
tell it (a camera that only turns, a small baseline): then the focal lengths stay and only the poses are adjusted."""
_EXPLAINED = 2.0  # pixels of the view: a match within this of its epipolar line is explained by the cameras
_FINER = (0.25, 0.5, 1.0, 2.0)  # what decides: where nearly all matches are within 2 pixels, how far within


@dataclass(frozen=True, eq=False)
class Refinement:
    """Cameras (original photos) after refinement, the tracks that go with them, and what was gained."""

    cameras: list[Camera]
    tracks: Tracks
    explained_before: float
    """Share of all matches within two view pixels of their epipolar line, with the cameras that came in."""
    explained_after: float
    kept: bool
    """False: the adjusted cameras explained the matches less well, and the cameras are those that came in."""


def refine(
    matches: Mapping[Pair, Matches],
    views: Sequence[View],
    cameras: Sequence[Camera],
    *,
    fixed_intrinsics: bool = False,
    shared_intrinsics: bool = False,
    fixed_poses: Sequence[int] = (),
    adjust: bool = True,
    measured: bool = False,
) -> Refinement:
    """Alternate triangulation of all tracks and bundle adjustment (Ceres, through pycolmap), tightening the gates.

    ``cameras[k]`` is the camera of ``views[k]`` for its original photo; indices in ``matches`` are into ``views``.
    Poses in ``fixed_poses`` stay exactly as they are. With ``adjust`` off, only the tracks are made. ``measured`` says
    that matches are places found in both pictures, to a fraction of a pixel; then how far within two pixels they lie
    decides between the cameras. Matches that follow from pointmaps know no better than those.
    """
    before = explained_share(matches, views, cameras)
    adjusted = list(cameras)
    if adjust:
        adjusted = _adjusted(matches, views, cameras, fixed_intrinsics, shared_intrinsics, fixed_poses)
        if _largest_zoom(cameras, adjusted) > _MOST_ZOOM:
            adjusted = _adjusted(matches, views, cameras, True, shared_intrinsics, fixed_poses)
    after = explained_share(matches, views, adjusted)
    kept = after > before
    if measured:
        kept = explained_share(matches, views, adjusted, _FINER) > explained_share(matches, views, cameras, _FINER)
    final = adjusted if kept else list(cameras)
    return Refinement(final, triangulated_tracks(matches, views, final), before, after, kept)


def _adjusted(
    matches: Mapping[Pair, Matches],
    views: Sequence[View],
    cameras: Sequence[Camera],
    fixed_intrinsics: bool,
    shared_intrinsics: bool,
    fixed_poses: Sequence[int],
) -> list[Camera]:
    adjusted = list(cameras)
    for max_error, min_angle in _ROUNDS:
        tracks = triangulated_tracks(matches, views, adjusted, max_error=max_error, min_angle=min_angle)
        if len(tracks.points) < _FEWEST_POINTS:
            break
        adjusted = bundle_adjust(
            adjusted,
            tracks,
            fixed_intrinsics=fixed_intrinsics,
            shared_intrinsics=shared_intrinsics,
            fixed_poses=fixed_poses,
        )
    return adjusted


def _largest_zoom(before: Sequence[Camera], after: Sequence[Camera]) -> float:
    """Largest factor by which a focal length has changed, up or down."""
    ratios = [float(b.intrinsics[0, 0] / a.intrinsics[0, 0]) for a, b in zip(before, after, strict=True)]
    return max(max(ratio, 1 / ratio) if ratio > 0 else float("inf") for ratio in ratios)


def explained_share(
    matches: Mapping[Pair, Matches],
    views: Sequence[View],
    cameras: Sequence[Camera],
    bounds: Sequence[float] = (_EXPLAINED,),
) -> float:
    """Share of matches within a bound (view pixels) of both epipolar lines, the mean over ``bounds``.

    It needs no tracks, so it judges fairly.
    """
    explained, total = 0.0, 0
    for (i, j), found in matches.items():
        if len(found.confidence) == 0:
            continue
        a = map_pixels(views[i].original_from_view, found.points_a.double())
        b = map_pixels(views[j].original_from_view, found.points_b.double())
        distance = _epipolar_distance(_fundamental(cameras[i], cameras[j]), a, b)
        scale = max(float(views[k].original_from_view[0, 0]) for k in (i, j))
        explained += float((distance[:, None] <= scale * distance.new_tensor(bounds)).double().mean(1).sum())
        total += len(a)
    return explained / max(total, 1)


def _fundamental(a: Camera, b: Camera) -> Tensor:
    """F with ``x_b^T F x_a = 0`` for pixels of the two original photos."""
    b_from_a = b.camera_from_world.double() @ a.world_from_camera.double()
    x, y, z = b_from_a[:3, 3].tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    essential = cross @ b_from_a[:3, :3]
    return torch.linalg.inv(b.intrinsics.double()).T @ essential @ torch.linalg.inv(a.intrinsics.double())


def _epipolar_distance(fundamental: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Larger of the two point-to-epipolar-line distances, in pixels."""
    a, b = (torch.cat([p, torch.ones_like(p[:, :1])], -1) for p in (a, b))
    line_b, line_a = a @ fundamental.T, b @ fundamental
    algebraic = (line_b * b).sum(-1).abs()
    shorter = torch.minimum(line_a[:, :2].norm(dim=-1), line_b[:, :2].norm(dim=-1))
    return algebraic / shorter.clamp(min=1e-12)
