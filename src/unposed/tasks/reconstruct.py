"""Photos in, a scene out: the main road of the house."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch

from unposed.align.clean import clean_pointcloud
from unposed.align.dense import Alignment, align
from unposed.align.initialise import ZOOM
from unposed.align.matching import pair_matches, with_matches
from unposed.align.multiview import multiview_depth
from unposed.align.refine import Refinement, refine
from unposed.align.sparse import SparseAlignment, sparse_align
from unposed.errors import UserError
from unposed.geometry.cameras import project
from unposed.geometry.transforms import transform_points
from unposed.io.atomic import atomic_write
from unposed.io.pairs_cache import PairCache, run_fingerprint
from unposed.io.photos import Photo, PhotoSet, find_photos, make_views
from unposed.models.base import MatchModel, PairModel, SweepModel
from unposed.models.inference import device_of, predict_pairs
from unposed.scene import Scene, SceneView
from unposed.tasks.inputs import as_model, model_identity
from unposed.tasks.mapping import map_collection, maps_matches
from unposed.tasks.pairs import pairs_of_views
from unposed.tasks.progress import Reporter, Silent, track
from unposed.views import Camera, Matches, Pair, PairPrediction, Tracks, View

Source = str | Path | Sequence[str | Path] | PhotoSet


@dataclass(frozen=True)
class Known:
    """What the user already knows, by photo name, in the pixels of the original photos."""

    intrinsics: Mapping[str, torch.Tensor]
    """3x3 matrices K."""
    world_from_camera: Mapping[str, torch.Tensor]
    """4x4 rigid transforms."""


NOTHING_KNOWN = Known({}, {})


def reconstruct(
    source: Source,
    *,
    model: str | PairModel = "auto",
    out: Path | str | None = None,
    graph: str = "auto",
    frames: int | None = None,
    every: int | None = None,
    known: Known = NOTHING_KNOWN,
    one_camera: bool | None = None,
    bundle: bool = True,
    clean: bool = True,
    road: str = "auto",
    device: str = "auto",
    report: Reporter | None = None,
) -> Scene:
    """Cameras, depth and points of photos that nobody calibrated.

    Args:
        source: a folder, a glob pattern, one photo or video, a list of them, or photos that were found already.
        model: a registered name, a path to a released file, a loaded model, or ``auto``.
        out: folder for the scene and its exports. With it, finished pairs outlive an interruption: the same call
            again continues where the last one stopped.
        graph: pairs to predict: ``auto``, ``complete``, ``swin-3``, ``logwin-4``, ``retrieval-20-10``, ... or a file
            of pairs.
        frames, every: of a video, how many frames evenly spread, or every n-th.
        known: intrinsics and poses to keep fixed.
        one_camera: all photos share one focal length; None: when they have the same size and their focals agree.
        bundle: refine the cameras by bundle adjustment, keeping the result only if it explains the matches better.
        clean: lower the confidence of points that stand in front of what another view sees (DUSt3R's clean-up); depth
            by plane sweep is checked against the other views as it is made.
        road: ``dense`` predicts and aligns pointmaps of pairs. ``sparse`` goes by matches: those that a model verifies
            itself are mapped at once, depth afterwards (``tasks/mapping.py``); pointmaps of networks are aligned by
            matches (``align/sparse.py``, MASt3R-SfM). ``auto`` maps more than ``COMPLETE_UP_TO`` photos of which
            nothing is known, where the model can, and is dense else.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        report: where progress and warnings go; nowhere by default.

    Returns:
        The largest scene; photos that could not be connected to it are in ``scene.others`` and
        ``scene.unregistered``.

    Raises:
        UserError: no usable photo, an unknown model, a file that cannot be read.
    """
    report = report or Silent()
    started = time.monotonic()
    found = source if isinstance(source, PhotoSet) else find_photos(source, frames=frames, every=every)
    for skipped in found.skipped:
        report.say(f"skipped {skipped.name}: {skipped.reason}")
    photos = found.photos if out is None else [_kept(photo, Path(out) / "images") for photo in found.photos]
    loaded = as_model(model, device, report)
    views = make_views(photos, loaded.image_rule)
    timings = {"photos": time.monotonic() - started}
    shared = could_share(photos) if one_camera is None else one_camera
    if maps_matches(road, loaded, len(views), known != NOTHING_KNOWN):
        mapped = map_collection(
            photos,
            views,
            loaded,
            run_fingerprint(model_identity(model, loaded), loaded.image_rule, ()),
            None if out is None else Path(out),
            graph=graph,
            in_sequence=found.in_sequence,
            one_camera=shared is not False,
            report=report,
            remembered={
                "model": str(model) if isinstance(model, str | Path) else loaded.name,
                "one_camera": one_camera,
            },
        )
        return gather(mapped.scenes, views, provenance_of(found, source, graph, mapped.pairs, timings | mapped.seconds))
    step = time.monotonic()
    pairs, features = pairs_of_views(graph, loaded, views, model, report, found.in_sequence)
    timings["choice of pairs"] = time.monotonic() - step
    with _pair_cache(out, run_fingerprint(model_identity(model, loaded), loaded.image_rule, photos)) as cache:
        todo = cache.missing(pairs)
        if len(todo) < len(pairs):
            report.say(f"{len(pairs) - len(todo)} of {len(pairs)} pairs come from an earlier run")
        step = time.monotonic()
        predictions = predict_pairs(loaded, views, todo, features)
        for pair, prediction in track(report, predictions, len(todo), f"{loaded.name}: pairs of views"):
            cache.put(pair, with_matches(prediction, device_of(loaded)))
        timings["pairs"] = time.monotonic() - step
        step = time.monotonic()
        predicted = _Chosen(cache, pairs)
        known_intrinsics, known_poses = _known_of_views(known, views)
        solve = sparse_align if road == "sparse" and len(views) > 1 else align
        alignments = solve(
            views,
            predicted,
            known_intrinsics=known_intrinsics,
            known_poses=known_poses,
            shared_focal=shared,
            progress=report.update,
        )
        timings["alignment"] = time.monotonic() - step
        step = time.monotonic()
        scenes = []
        for alignment in track(report, alignments, len(alignments), "tracks and bundle adjustment"):
            scenes.append(_component(alignment, views, predicted, loaded, known, bundle, clean, report))
        timings["refinement"] = time.monotonic() - step
    return gather(scenes, views, provenance_of(found, source, graph, len(pairs), timings))


def provenance_of(found: PhotoSet, source: Source, graph: str, pairs: int, seconds: Mapping[str, float]) -> dict:
    """What a scene says of how it was made; anything JSON can hold."""
    return {
        "unposed": version("unposed"),
        "torch": torch.__version__,
        "source": ", ".join(p.name for p in found.photos) if isinstance(source, PhotoSet) else str(source),
        "graph": graph,
        "pairs": pairs,
        "skipped": [f"{s.name}: {s.reason}" for s in found.skipped],
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }


def _kept(photo: Photo, directory: Path) -> Photo:
    """A frame of a video as a file, since exports name the photos that their cameras belong to; photos as they are."""
    if photo.data is None:
        return photo
    path = directory / photo.name
    with atomic_write(path) as temporary:
        temporary.write_bytes(photo.data)
    return replace(photo, path=path, data=None)


class _Chosen(Mapping[Pair, PairPrediction]):
    """Some pairs of a cache that may hold more, from an earlier run with another scene graph."""

    def __init__(self, cache: PairCache, pairs: Sequence[Pair]) -> None:
        self._cache, self._pairs = cache, dict.fromkeys(pairs)

    def __getitem__(self, pair: Pair) -> PairPrediction:
        if pair not in self._pairs:
            raise KeyError(pair)
        return self._cache[pair]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


def could_share(photos: Sequence[Photo]) -> bool | None:
    """False where size or EXIF tell that no one camera took all photos; else None: their focals may still differ."""
    sizes = {tuple(sorted(photo.size)) for photo in photos}  # whichever way the camera was held
    focals = [photo.exif_focal for photo in photos if photo.exif_focal]
    return None if len(sizes) == 1 and max(focals, default=1.0) < ZOOM * min(focals, default=1.0) else False


@contextmanager
def _pair_cache(out: Path | str | None, fingerprint: str) -> Iterator[PairCache]:
    """A cache in ``out`` that outlives an interruption, or a temporary one."""
    if out is not None:
        yield PairCache.open(Path(out) / "pairs", fingerprint)
        return
    with tempfile.TemporaryDirectory(prefix="unposed-") as directory:
        yield PairCache.open(Path(directory) / "pairs", fingerprint)


def _known_of_views(known: Known, views: Sequence[View]) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
    """Known intrinsics (moved to the pixels of the views) and poses, by index."""
    index = {view.name: k for k, view in enumerate(views)}
    unknown = sorted((set(known.intrinsics) | set(known.world_from_camera)) - set(index))
    if unknown:
        raise UserError(f"known cameras name {unknown[0]!r}, which is not one of the {len(views)} usable photos")
    intrinsics = {
        index[name]: (torch.linalg.inv(views[index[name]].original_from_view) @ k.double()).float()
        for name, k in known.intrinsics.items()
    }
    return intrinsics, {index[name]: pose.float() for name, pose in known.world_from_camera.items()}


def _component(
    alignment: Alignment,
    views: Sequence[View],
    cache: Mapping[Pair, PairPrediction],
    model: PairModel,
    known: Known,
    bundle: bool,
    clean: bool,
    report: Reporter,
) -> Scene:
    """One connected set of views as a scene: cameras of the original photos, tracks, refinement, cleaned maps."""
    mine = [views[k] for k in alignment.indices]
    cameras = [
        Camera(k, pose, view.size[1], view.size[0]).through(view.original_from_view, *view.original_size)
        for k, pose, view in zip(alignment.intrinsics, alignment.world_from_camera, mine, strict=True)
    ]
    matches = _matches(alignment, cache)
    maps, tracks = list(zip(alignment.depth, alignment.confidence, strict=True)), None
    if len(mine) > 1:
        focals = alignment.intrinsics[:, 0, 0]
        result = _refined(
            matches, mine, cameras, known, bool((focals == focals[0]).all()), bundle, isinstance(model, MatchModel)
        )
        cameras, tracks = result.cameras, result.tracks
        if result.kept:
            maps = [(_rescaled(depth, k, result, mine), sure) for k, (depth, sure) in enumerate(maps)]
            report.say(
                f"bundle adjustment: {result.explained_before:.0%} -> {result.explained_after:.0%} of the matches fit"
            )
    scene_views = [SceneView(view, camera, *both) for view, camera, both in zip(mine, cameras, maps, strict=True)]
    if tracks is not None and isinstance(model, SweepModel):
        scene_views = _swept(scene_views, tracks, model)
    elif clean and len(mine) > 1:
        scene_views = _cleaned(scene_views)
    return Scene(tuple(scene_views), tracks, model.metric, model.name, {}, (), ())


def _matches(alignment: Alignment, cache: Mapping[Pair, PairPrediction]) -> dict[Pair, Matches]:
    """Matches of the component's pairs, by position in ``alignment.indices``; what both orders have alike, once."""
    position = {k: n for n, k in enumerate(alignment.indices)}
    if isinstance(alignment, SparseAlignment):  # found once already, from both orders
        return {(position[i], position[j]): found for (i, j), found in alignment.matches.items()}
    matches: dict[Pair, Matches] = {}
    for i, j in cache:
        if i == j or i not in position or j not in position:
            continue
        a, b = position[i], position[j]
        found, other = pair_matches(cache[i, j]), matches.get((b, a))
        if other is None or not torch.equal(found.points_a, other.points_b):
            matches[a, b] = found
    return matches


def _refined(
    matches: Mapping[Pair, Matches],
    views: Sequence[View],
    cameras: Sequence[Camera],
    known: Known,
    shared: bool,
    bundle: bool,
    measured: bool,
) -> Refinement:
    fixed_poses = [k for k, view in enumerate(views) if view.name in known.world_from_camera]
    everything_known = bool(known.intrinsics) and all(view.name in known.intrinsics for view in views)
    return refine(
        matches,
        views,
        cameras,
        fixed_intrinsics=everything_known,
        shared_intrinsics=shared,
        fixed_poses=fixed_poses,
        adjust=bundle,
        measured=measured,
    )


def _rescaled(depth: torch.Tensor, k: int, result: Refinement, views: Sequence[View]) -> torch.Tensor:
    """A depth map brought to the scale of the refined tracks that its view sees."""
    tracks = result.tracks
    mine = tracks.view == k
    if int(mine.sum()) < 8:
        return depth
    camera = result.cameras[k].through(torch.linalg.inv(views[k].original_from_view), depth.shape[1], depth.shape[0])
    points = transform_points(camera.camera_from_world, tracks.points[tracks.track[mine]])
    pixel = project(points, camera.intrinsics).round().long()
    inside = (pixel >= 0).all(-1) & (pixel[:, 0] < depth.shape[1]) & (pixel[:, 1] < depth.shape[0])
    predicted = depth[pixel[inside, 1], pixel[inside, 0]]
    ratio = points[inside, 2] / predicted
    ratio = ratio[(predicted > 0) & (ratio > 0)]
    return depth * ratio.median() if len(ratio) >= 8 else depth


def _swept(scene_views: Sequence[SceneView], tracks: Tracks, model: SweepModel) -> list[SceneView]:
    """The views with depth from all their neighbours at once, where they have any."""
    found = multiview_depth(
        [sv.view for sv in scene_views], [sv.view_camera for sv in scene_views], tracks, model.expected_depth
    )
    return [
        sv if maps is None else replace(sv, depth=maps[0], confidence=maps[1])
        for sv, maps in zip(scene_views, found, strict=True)
    ]


def _cleaned(scene_views: Sequence[SceneView]) -> list[SceneView]:
    cameras = [sv.view_camera for sv in scene_views]
    confidence = clean_pointcloud(
        torch.stack([camera.intrinsics for camera in cameras]),
        torch.stack([camera.camera_from_world for camera in cameras]),
        [sv.depth for sv in scene_views],
        [sv.pointmap() for sv in scene_views],
        [sv.confidence for sv in scene_views],
    )
    return [replace(sv, confidence=c) for sv, c in zip(scene_views, confidence, strict=True)]


def gather(scenes: Sequence[Scene], views: Sequence[View], provenance: dict) -> Scene:
    """The largest component with the others behind it; components of one photo are unregistered, unless all are."""
    connected = [scene for scene in scenes if len(scene.views) > 1] or list(scenes[:1])
    registered = {sv.view.name for scene in connected for sv in scene.views}
    unregistered = tuple(view.name for view in views if view.name not in registered)
    first, *others = (replace(scene, provenance=provenance) for scene in connected)
    return replace(first, others=tuple(others), unregistered=unregistered)
