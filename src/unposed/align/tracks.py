"""Tracks over many views from pairwise matches, and their triangulation with given cameras."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from unposed.align.keypoints import merge_keypoints
from unposed.geometry.cameras import map_pixels
from unposed.views import Camera, Matches, Pair, Tracks, View


def build_tracks(matches: Mapping[Pair, Matches]) -> tuple[Tensor, Tensor, Tensor]:
    """Observations of features seen in two views or more: (view index, pixel in the view, track index) per row.

    Two features are one track when a chain of matches joins them, unless the track would then enter a view twice: such
    chains are cut at their less confident links.
    """
    keypoints = merge_keypoints(matches)
    if len(keypoints.view) == 0:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)
    view = keypoints.view.numpy()
    links = torch.cat(list(keypoints.links.values())).numpy()
    confidence = torch.cat([found.confidence for found in matches.values()]).numpy()
    track = _components(links, len(view))
    twice = _enters_a_view_twice(track, view)
    if twice.any():
        suspect = twice[track[links[:, 0]]]
        order = np.argsort(-confidence[suspect], kind="stable")
        kept = _consistent_links(links[suspect][order], view)
        track = _components(np.concatenate([links[~suspect], kept]), len(view))
    seen_again = np.bincount(track)[track] >= 2
    _, track = np.unique(track[seen_again], return_inverse=True)
    return torch.from_numpy(view[seen_again]), keypoints.pixel[seen_again], torch.from_numpy(track)


def without_short_tracks(matches: Mapping[Pair, Matches], min_length: int) -> dict[Pair, Matches]:
    """The matches whose chain of matches joins at least ``min_length`` features, several of one view included.

    What MASt3R-SfM's export keeps of matches before COLMAP verifies them.
    """
    keypoints = merge_keypoints(matches)
    links = torch.cat([torch.zeros(0, 2, dtype=torch.long), *keypoints.links.values()]).numpy()
    track = _components(links, len(keypoints.view))
    long = torch.from_numpy(np.bincount(track)[track] >= min_length)
    kept = {pair: long[found[:, 0]] for pair, found in keypoints.links.items()}
    return {pair: found.where(kept[pair]) for pair, found in matches.items()}


def _components(links: np.ndarray, count: int) -> np.ndarray:
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _enters_a_view_twice(track: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Per track, whether two of its features lie in one view."""
    rows, count = np.unique(np.stack([track, view], -1), axis=0, return_counts=True)
    twice = np.zeros(track.max() + 1, bool)
    twice[rows[count > 1, 0]] = True
    return twice


def _consistent_links(links: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Links, best first, that join features without bringing two of one view together."""
    members: dict[int, set[int]] = {}
    kept = []
    for link in links:
        groups = [members.setdefault(int(k), {int(k)}) for k in link]
        if groups[0] is not groups[1]:
            if {view[k] for k in groups[0]} & {view[k] for k in groups[1]}:
                continue
            groups[0] |= groups[1]
            for k in groups[1]:
                members[k] = groups[0]
        kept.append(link)
    return np.array(kept, links.dtype).reshape(-1, 2)


def triangulate(
    projections: Tensor, view: Tensor, pixel: Tensor, track: Tensor, count: int, weight: Tensor | None = None
) -> Tensor:
    """Points (count, 3) of tracks by the direct linear transform over all their views (Hartley and Zisserman, 12.2).

    ``projections`` (views, 3, 4) map world points to pixels; rows of ``view``, ``pixel``, ``track`` are observations.
    """
    rows = pixel.double()[..., None] * projections[view, 2:3] - projections[view, :2]
    rows = rows / rows[..., :3].norm(dim=-1, keepdim=True).clamp(min=1e-12)
    if weight is not None:
        rows = rows * weight[:, None, None]
    normal = torch.zeros(count, 4, 4, dtype=torch.float64)
    normal.index_add_(0, track, rows.transpose(-1, -2) @ rows)
    point = torch.linalg.eigh(normal)[1][..., 0]
    w = point[:, 3:]
    return point[:, :3] / torch.where(w.abs() < 1e-12, torch.full_like(w, 1e-12), w)


def triangulated_tracks(
    matches: Mapping[Pair, Matches],
    views: Sequence[View],
    cameras: Sequence[Camera],
    *,
    max_error: float = 4.0,
    min_angle: float = 1.0,
) -> Tracks:
    """Sparse points with observations in the pixels of the original photos.

    ``cameras[k]`` is the camera of ``views[k]`` for its original photo. Observations further than ``max_error`` pixels
    (of the view, so that it means the same for every photo size) from their point's projection, behind a camera, or in
    tracks whose rays meet at less than ``min_angle`` degrees are dropped.
    """
    view, pixel, track = build_tracks(matches)
    found = consistent_points(view, pixel, track, views, cameras, max_error=max_error, min_angle=min_angle)
    view, pixel, original = view[found.rows], pixel[found.rows], found.original
    colours = mean_colours(views, view, pixel, found.track, len(found.points))
    return Tracks(found.points.float(), colours, view, original.float(), found.track)


class ConsistentPoints(NamedTuple):
    """Triangulated tracks and the observations that agree with them."""

    points: Tensor
    """World points (n, 3), float64."""
    names: Tensor
    """Number (n,) of each point's track in what was given."""
    rows: Tensor
    """Observations (m,) that were kept: rows of what was given."""
    track: Tensor
    """Index (m,) into ``points`` of each kept observation."""
    original: Tensor
    """Kept pixels (m, 2) in the original photos, float64."""


def consistent_points(
    view: Tensor,
    pixel: Tensor,
    track: Tensor,
    views: Sequence[View],
    cameras: Sequence[Camera],
    *,
    max_error: float = 4.0,
    min_angle: float = 1.0,
) -> ConsistentPoints:
    """Triangulate tracks and drop what does not agree, as :func:`triangulated_tracks` says.

    Rows of ``view``, ``pixel`` (of the view) and ``track`` are observations.
    """
    scale = torch.tensor([float(v.original_from_view[0, 0]) for v in views], dtype=torch.float64)
    original = torch.zeros_like(pixel, dtype=torch.float64)
    for k, v in enumerate(views):
        original[view == k] = map_pixels(v.original_from_view, pixel[view == k].double())
    camera_from_world = torch.stack([c.camera_from_world.double() for c in cameras])
    projections = torch.stack([c.intrinsics.double() for c in cameras]) @ camera_from_world[:, :3]
    centres = torch.stack([c.centre.double() for c in cameras])
    names, rows = torch.arange(int(track.max()) + 1 if len(track) else 0), torch.arange(len(view))
    points = torch.zeros(0, 3, dtype=torch.float64)
    for allowed in (4 * max_error, 2 * max_error, max_error):  # outliers leave before the final point is computed
        points = triangulate(projections, view, original, track, len(names), 1 / scale[view])
        good = _errors(projections, view, original, points[track]) <= allowed * scale[view]
        good &= _wide_enough(centres, view, track, points, good, min_angle)[track]
        good &= torch.bincount(track[good], minlength=len(names))[track] >= 2
        view, original, rows = view[good], original[good], rows[good]
        kept, track = track[good].unique(return_inverse=True)
        points, names = points[kept], names[kept]
    return ConsistentPoints(points, names, rows, track, original)


def _errors(projections: Tensor, view: Tensor, pixel: Tensor, points: Tensor) -> Tensor:
    """Reprojection error in pixels; infinite behind the camera."""
    homogeneous = (projections[view] @ torch.cat([points, torch.ones_like(points[:, :1])], -1)[..., None])[..., 0]
    depth = homogeneous[:, 2:]
    error = (homogeneous[:, :2] / depth.clamp(min=1e-9) - pixel).norm(dim=-1)
    return torch.where(depth[:, 0] > 1e-9, error, torch.inf)


def _wide_enough(
    centres: Tensor, view: Tensor, track: Tensor, points: Tensor, good: Tensor, min_angle: float
) -> Tensor:
    """Per track, whether its rays spread by ``min_angle`` degrees (twice the largest deviation from their mean)."""
    rays = torch.nn.functional.normalize(points[track] - centres[view], dim=-1)
    total = torch.zeros(len(points), 3, dtype=rays.dtype).index_add_(0, track[good], rays[good])
    mean = torch.nn.functional.normalize(total, dim=-1)
    cosine = (rays * mean[track]).sum(-1).clamp(-1, 1)
    cosine = torch.where(good, cosine, 1.0)
    smallest = torch.ones(len(points), dtype=rays.dtype).scatter_reduce(0, track, cosine, "amin")
    return torch.rad2deg(2 * smallest.acos()) >= min_angle


def mean_colours(views: Sequence[View], view: Tensor, pixel: Tensor, track: Tensor, count: int) -> Tensor:
    """Mean colour of each track over its observations (uint8)."""
    total = torch.zeros(count, 3)
    for k, v in enumerate(views):
        mine = view == k
        x = pixel[mine, 0].round().long().clamp(0, v.size[1] - 1)
        y = pixel[mine, 1].round().long().clamp(0, v.size[0] - 1)
        total.index_add_(0, track[mine], v.image[y, x].float())
    share = torch.bincount(track, minlength=count).clamp(min=1)[:, None]
    return (total / share).round().to(torch.uint8)
