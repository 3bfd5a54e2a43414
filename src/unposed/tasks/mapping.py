"""The sparse road, for large collections: matches of pairs that look alike, one mapping of all, then depth.

Nothing dense is kept of a pair. Features and matches go to a cache on disk (``collection_cache``) as they are finished;
in memory are the photos' views, the features of some, and at the end all matches and the depth maps.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from unposed.align.keypoints import merge_keypoints, one_to_one
from unposed.align.matching import predict_matches
from unposed.align.multiview import multiview_depth
from unposed.align.tracks import mean_colours
from unposed.errors import UserError
from unposed.geometry.cameras import map_pixels
from unposed.io.atomic import atomic_write
from unposed.io.photos import Photo
from unposed.models.base import MatchModel, PairModel
from unposed.models.retrieval import find_retriever
from unposed.models.sift import Keypoints
from unposed.scene import Scene, SceneView
from unposed.tasks.collection_cache import CollectionCache
from unposed.tasks.pairs import COMPLETE_UP_TO, choose_pairs, wants_similarity
from unposed.tasks.progress import Reporter
from unposed.views import Camera, Matches, Pair, Tracks, View

CACHE = "collection"
"""Folder, beside the scene, of what photos that join later need."""
RUN = "run.json"
"""File in it that says which photos went through, and how."""
PAIRS_AT_ONCE, PHOTOS_AT_ONCE = 256, 96
"""Pairs that are matched together, after agreeing on focal lengths, and photos whose features are then in memory."""
_VIEWS_AT_ONCE = 16


def maps_matches(road: str, model: PairModel, photos: int, cameras_known: bool) -> bool:
    """Whether a reconstruction maps verified matches; ``auto`` does for many photos, where the model has them.

    Networks go the sparse road in their own way: their pointmaps are aligned by matches.

    Raises:
        UserError: no such road, or a sparse one that known cameras do not allow.
    """
    if road not in ("auto", "dense", "sparse"):
        raise UserError(f"unknown road {road!r}: use auto, dense or sparse.")
    if road != "sparse":
        return road == "auto" and photos > COMPLETE_UP_TO and isinstance(model, MatchModel) and not cameras_known
    if not isinstance(model, MatchModel):
        return False
    if cameras_known:
        raise UserError("the sparse road cannot keep known cameras: leave them out, or take the dense road.")
    return True


@dataclass(frozen=True, eq=False)
class MappedCollection:
    """What the sparse road finds."""

    scenes: list[Scene]
    """Connected parts, the largest first."""
    pairs: int
    """Unordered pairs whose matches were used."""
    seconds: dict[str, float]
    """By step."""


def memory_needed(views: Sequence[View]) -> float:
    """Bytes of memory that the sparse road and its outputs take at their peak, about."""
    return _FIXED_BYTES + _BYTES_PER_PIXEL * sum(view.size[0] * view.size[1] for view in views)


_FIXED_BYTES, _BYTES_PER_PIXEL = 0.7e9, 120
"""Measured: libraries and features in flight; of every pixel of the views image, maps and, most of all, exports."""


def map_collection(
    photos: Sequence[Photo],
    views: Sequence[View],
    model: PairModel,
    fingerprint: str,
    out: Path | None,
    *,
    graph: str,
    in_sequence: bool,
    one_camera: bool,
    report: Reporter,
    remembered: Mapping[str, object],
    settled: frozenset[str] = frozenset(),
) -> MappedCollection:
    """Scenes from many photos.

    Args:
        photos, views: in the same order.
        model: gives ``Keypoints`` as features and verified matches without depth (``MatchModel``).
        fingerprint: names the model and its image rule.
        out: folder whose ``CACHE`` outlives an interruption; without it nothing does.
        graph, in_sequence: which pairs to match, as for ``choose_pairs``.
        one_camera: photos of one size share a focal length.
        report: where progress goes.
        remembered: what ``CACHE`` says of the run once it is through, beside its photos (JSON).
        settled: digests of photos whose pairs with each other are taken as the cache has them.

    Raises:
        UserError: the cache cannot be written, no such scene graph, or no photos that can be connected.
    """
    clock = _Clock()
    report.say(f"sparse road: about {memory_needed(views) / 1e9:.1f} GB of memory for {len(views)} photos")
    names = [photo.digest for photo in photos]
    with _cache(out, fingerprint) as cache:
        similarity = _encode_all(cache, names, views, model, wants_similarity(graph, len(views)), report)
        chosen = choose_pairs(graph, [view.name for view in views], similarity, in_sequence)
        clock.lap("choice of pairs")
        pairs = sorted({(min(pair), max(pair)) for pair in chosen if pair[0] != pair[1]})
        if settled:
            pairs = _with_settled(pairs, names, settled, cache.pairs())
        _match_all(cache, names, views, model, pairs, report)
        clock.lap("pairs")
        mapped = _map(cache, names, views, pairs, one_camera, report)
        clock.lap("mapping")
    if out is not None:
        listed = [{"name": photo.name, "path": str(photo.path), "digest": photo.digest} for photo in photos]
        with atomic_write(out / CACHE / RUN) as temporary:
            temporary.write_text(json.dumps({**remembered, "photos": listed}, indent=1), encoding="utf-8")
    if not mapped:
        raise UserError(
            f"no three of the {len(views)} photos could be connected: take photos that overlap more, or try the dense "
            "road, which joins two."
        )
    scenes = []
    for k, (cameras, tracks) in enumerate(mapped):
        report.update("depth of connected photos", k, len(mapped))
        scenes.append(_scene(cameras, tracks, views, model))
    report.update("depth of connected photos", len(mapped), len(mapped))
    clock.lap("depth")
    return MappedCollection(scenes, len(pairs), clock.seconds)


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, step: str) -> None:
        now = time.monotonic()
        self.seconds[step], self._last = now - self._last, now


@contextmanager
def _cache(out: Path | None, fingerprint: str) -> Iterator[CollectionCache]:
    """The cache in ``out``, or a temporary one."""
    if out is not None:
        with closing(CollectionCache.open(out / CACHE, fingerprint)) as cache:
            yield cache
        return
    with (
        tempfile.TemporaryDirectory(prefix="unposed-") as folder,
        closing(CollectionCache.open(folder, fingerprint)) as cache,
    ):
        yield cache


def _encode_all(
    cache: CollectionCache,
    names: Sequence[str],
    views: Sequence[View],
    model: PairModel,
    compare: bool,
    report: Reporter,
) -> torch.Tensor | None:
    """Put the features of all photos into the cache; their similarity (photos x photos) where it is asked for."""
    retriever = find_retriever(model) if compare else None
    descriptions = []
    for start in range(0, len(views), _VIEWS_AT_ONCE):
        part = range(start, min(start + _VIEWS_AT_ONCE, len(views)))
        missing = [k for k in part if not cache.has_features(names[k])]
        for k, features in zip(missing, model.encode([views[k] for k in missing]) if missing else [], strict=True):
            cache.put_features(names[k], features)
        if retriever is not None:
            stored = [cache.features(names[k]) for k in part]
            descriptions += retriever.describe([views[k] for k in part], stored)
        report.update(f"{model.name}: photos", part.stop, len(views))
    return retriever.similarity(descriptions, descriptions) if retriever is not None else None


def _with_settled(
    pairs: Sequence[Pair], names: Sequence[str], settled: frozenset[str], stored: set[tuple[str, str]]
) -> list[Pair]:
    """The pairs that a new photo is in, and those between settled ones that are stored."""
    position = {name: k for k, name in enumerate(names)}
    old = [(position[a], position[b]) for a, b in stored if a in position and b in position]
    new = [(i, j) for i, j in pairs if not {names[i], names[j]} <= settled]
    return sorted({*new, *((min(pair), max(pair)) for pair in old)})


def _match_all(
    cache: CollectionCache,
    names: Sequence[str],
    views: Sequence[View],
    model: PairModel,
    pairs: Sequence[Pair],
    report: Reporter,
) -> None:
    """Put the matches of all pairs into the cache, with the features of a few photos in memory at a time."""
    stored = cache.pairs()
    todo = [(i, j) for i, j in pairs if (min(names[i], names[j]), max(names[i], names[j])) not in stored]
    if len(todo) < len(pairs):
        report.say(f"{len(pairs) - len(todo)} of {len(pairs)} pairs come from an earlier run")
    done = 0
    for block in _blocks(todo):
        features: list[Keypoints | None] = [None] * len(views)
        for k in {index for pair in block for index in pair}:
            features[k] = cache.features(names[k])
        for (i, j), found in predict_matches(model, views, block, features):
            cache.put_matches(names[i], names[j], found)
            done += 1
            report.update(f"{model.name}: pairs of photos", done, len(todo))


def _blocks(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Pairs in order, in blocks that stay within the limits."""
    block: list[Pair] = []
    inside: set[int] = set()
    for pair in pairs:
        if block and (len(block) >= PAIRS_AT_ONCE or len(inside | set(pair)) > PHOTOS_AT_ONCE):
            yield block
            block, inside = [], set()
        block.append(pair)
        inside |= set(pair)
    if block:
        yield block


def _map(
    cache: CollectionCache,
    names: Sequence[str],
    views: Sequence[View],
    pairs: Sequence[Pair],
    one_camera: bool,
    report: Reporter,
) -> list[tuple[dict[str, Camera], Tracks]]:
    """Cameras and tracks of every connected part, in pixels of the views."""
    from unposed.io.colmap_mapping import map_matches  # pycolmap takes a while to import

    matches: dict[Pair, Matches] = {}
    focals: list[list[float]] = [[] for _ in views]
    for i, j in pairs:
        stored = cache.matches(names[i], names[j])
        if len(stored.matches.confidence):
            matches[i, j] = stored.matches
            focals[i].append(stored.focals[0])
            focals[j].append(stored.focals[1])
    merged = merge_keypoints(matches)
    indices = {}
    for pair, found in matches.items():
        links = merged.links_of_views(pair)
        indices[pair] = links[one_to_one(links, found.confidence)]
    models = map_matches(
        [view.name for view in views],
        [(view.size[1], view.size[0]) for view in views],
        [float(np.median(each)) if each else float(max(view.size)) for each, view in zip(focals, views, strict=True)],
        [merged.of_view(k) for k in range(len(views))],
        indices,
        one_camera=one_camera,
        progress=lambda done, total: report.update("mapping", done, total),
    )
    return [(model.cameras, model.tracks) for model in models]


def _scene(cameras: dict[str, Camera], tracks: Tracks, views: Sequence[View], model: PairModel) -> Scene:
    """A connected part with depth, in the frame of its first camera; ``cameras`` and ``tracks`` are of the views."""
    by_name = {view.name: view for view in views}
    mine = [by_name[name] for name in cameras]
    found = multiview_depth(mine, list(cameras.values()), tracks, getattr(model, "expected_depth", _flat))
    items = []
    for view, camera, maps in zip(mine, cameras.values(), found, strict=True):
        depth, confidence = maps or (torch.zeros(view.size), torch.ones(view.size))
        original = camera.through(view.original_from_view, *view.original_size)
        items.append(SceneView(view, original, depth, confidence))
    pixel = torch.zeros(len(tracks.pixel), 2)
    for k, view in enumerate(mine):
        rows = tracks.view == k
        pixel[rows] = map_pixels(view.original_from_view, tracks.pixel[rows].double()).float()
    colours = mean_colours(mine, tracks.view, tracks.pixel, tracks.track, len(tracks.points))
    scene = Scene(tuple(items), replace(tracks, pixel=pixel, colours=colours), model.metric, model.name)
    first = items[0].camera.camera_from_world
    return scene.transformed(rotation=first[:3, :3], translation=first[:3, 3])


def _flat(view: View) -> torch.Tensor:
    """The logarithm of a depth that is the same everywhere."""
    return torch.zeros(1, 1)
