"""Depth of every pixel of photos: of one photo alone, or of photos of one place solved together."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unposed.errors import UserError
from unposed.io.atomic import atomic_write
from unposed.io.depth_files import (
    at_original_size,
    depth_at_original_size,
    depth_colours,
    depth_range,
    normal_colours,
    normals_at_original_size,
    unique_stems,
    write_depth_npz,
    write_depth_png,
)
from unposed.io.exr import write_exr
from unposed.io.mesh import depth_edges
from unposed.io.photos import Photo, PhotoSet, make_view
from unposed.io.ply import write_ply
from unposed.io.preview import write_png
from unposed.models.base import MonocularModel, PairModel
from unposed.scene import Scene, SceneView
from unposed.tasks.inputs import PhotosLike, as_any_model, as_photos, is_one_photo
from unposed.tasks.progress import Reporter, Silent, track
from unposed.tasks.reconstruct import reconstruct
from unposed.views import Camera, PointCloud

Format = Literal["png", "exr", "ply"]
FORMATS: tuple[Format, ...] = get_args(Format)
"""Kinds of files that are written when asked for; NPZ and the colour picture always are."""
DEPTH_MODEL = "mini"
"""What ``auto`` means here: the offline model that has an idea of the depth of a view where nothing can be matched."""
_FLAT = 1.001
"""Largest depth over the smallest up to which a map is a flat wall: a model's way to say that it knows nothing."""


@dataclass(frozen=True, eq=False)
class Depth:
    """Depth of one photo, at its own pixels (after EXIF rotation)."""

    name: str
    """Name of the photo in its set."""
    depth: Float[Tensor, "height width"]
    """Along the camera's z axis; 0 where unknown, which is also what the model did not look at."""
    confidence: Float[Tensor, "height width"]
    """The model's own definition, larger is better, at least 1 for the family; 0 what it did not look at."""
    intrinsics: Float[Tensor, "3 3"]
    """K in pixels of the photo; pixel (0, 0) is the centre of the top-left pixel."""
    metric: bool
    """Whether depth is in metres; else it is up to scale."""
    scene: int | None
    """Photos with the same number share one scale and one world frame, 1 is the largest such set; None: a photo by
    itself, with a scale of its own."""
    range: tuple[float, float]
    """Nearest and farthest depth (2nd and 98th percentile) of all photos of the scene, for pictures with one scale."""
    model: str
    """Name of the model that predicted it."""
    seen: SceneView
    """What the model looked at: the view, its depth before it was brought to the photo's size, and the camera."""
    normals: Float[Tensor, "height width 3"] | None = None
    """Unit surface normals in the camera frame, 0 where unknown; None where the model has none."""

    def colours(self) -> UInt8[Tensor, "height width 3"]:
        """Inverse depth in false colours, near red and far blue, one scale for all photos of a scene."""
        return depth_colours(self.depth, self.range)

    def points(self) -> PointCloud:
        """Coloured points of the pixels the model looked at, without those at depth edges and the least sure ones.

        In the world frame of the scene, so that the points of its photos fit together; of a photo by itself, in the
        frame of its camera.
        """
        depth = torch.where(depth_edges(self.seen.depth), 0.0, self.seen.depth)
        return Scene((replace(self.seen, depth=depth),)).points()


def depth(
    photos: PhotosLike,
    *,
    model: str | PairModel | MonocularModel = "auto",
    alone: bool = False,
    frames: int | None = None,
    every: int | None = None,
    device: str = "auto",
    report: Reporter | None = None,
) -> Depth | list[Depth]:
    """Depth, confidence and intrinsics of one photo, or of several at once.

    Args:
        photos: one photo (a file, a Pillow picture, an array height x width x 3 of uint8), or several: a folder, a
            glob pattern, a video or a list.
        model: a registered name, a path to a released file, a loaded model, or ``auto``: ``DEPTH_MODEL``. A model of
            single photos (MoGe) takes every photo by itself.
        alone: treat every photo by itself. By default several photos show one place and are solved together, and only
            those that cannot be joined to the others are treated by themselves.
        frames, every: of a video, how many frames evenly spread, or every n-th.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        report: where progress and warnings go; nowhere by default.

    Returns:
        For one photo its depth; else a list in natural order of the names. Photos the model can say nothing of are
        left out, with a line to ``report``.

    Raises:
        UserError: no usable photo, an unknown model, or a model that sees no depth in a single photo.
    """
    results = list(
        each_depth(photos, model=model, alone=alone, frames=frames, every=every, device=device, report=report)
    )
    return results[0] if is_one_photo(photos) else results


def each_depth(
    photos: PhotosLike,
    *,
    model: str | PairModel | MonocularModel = "auto",
    alone: bool = False,
    frames: int | None = None,
    every: int | None = None,
    device: str = "auto",
    report: Reporter | None = None,
) -> Iterator[Depth]:
    """What ``depth`` gives, one photo after the other, so that maps of full size need not all be held in memory."""
    report = report or Silent()
    found = as_photos(photos, frames=frames, every=every)
    for skipped in found.skipped:
        report.say(f"skipped {skipped.name}: {skipped.reason}")
    chosen = PhotoSet(found.photos, [])
    model = as_any_model(DEPTH_MODEL if model == "auto" else model, device, report)
    if isinstance(model, MonocularModel):
        for photo in track(report, chosen.photos, len(chosen.photos), f"{model.name}: single photos"):
            yield _by_monocular(photo, model)
        return
    joined: dict[str, tuple[int, Scene, SceneView]] = {}
    if not alone and len(chosen.photos) > 1:
        joined = _joined(reconstruct(chosen, model=model, report=report))
    left = [photo for photo in chosen.photos if photo.name not in joined]
    single = _by_themselves(left, model, report, needed=not joined) if left else {}
    if not alone and len(chosen.photos) > 1:
        for photo in left:
            what = "taken by itself" if photo.name in single else "no depth"
            report.say(f"{photo.name} could not be joined to the other photos: {what}")
    ranges = {number: depth_range([item.depth for item in scene.views]) for number, scene, _ in joined.values()}
    for photo in chosen.photos:
        if photo.name in joined:
            number, scene, item = joined[photo.name]
            yield _at_photo_size(item, scene, number, ranges[number])
        elif photo.name in single:
            scene = single[photo.name]
            yield _at_photo_size(scene.views[0], scene, None, depth_range([scene.views[0].depth]))


def _joined(scene: Scene) -> dict[str, tuple[int, Scene, SceneView]]:
    """Photos that have a pose relative to another one: number of their scene, that scene, and the view."""
    scenes = [part for part in (scene, *scene.others) if len(part.views) > 1]
    return {item.view.name: (number, part, item) for number, part in enumerate(scenes, 1) for item in part.views}


def _by_themselves(photos: Sequence[Photo], model: PairModel, report: Reporter, needed: bool) -> dict[str, Scene]:
    """Every photo as a pair with itself (DUSt3R, section 3.3), by name; without those answered with a flat wall.

    Raises:
        UserError: the depth of one is ``needed`` and the answer is a flat wall.
    """
    found = {}
    for photo in track(report, photos, len(photos), f"{model.name}: single photos"):
        scene = reconstruct(PhotoSet([photo], []), model=model)
        values = scene.views[0].depth
        if float(values.max()) > _FLAT * float(values.min()):
            found[photo.name] = scene
        elif needed:
            raise UserError(
                f"{model.name} sees no depth in a single photo, and no other photo overlaps with {photo.name}: "
                f"give overlapping photos of one place, or another model (--model {DEPTH_MODEL})."
            )
    return found


def _by_monocular(photo: Photo, model: MonocularModel) -> Depth:
    """Depth, camera and normals of a photo from a model of single photos; its confidence is 1 where it has a depth."""
    view = make_view(photo, model.image_rule)
    found = model.infer([view])[0]
    height, width = view.size
    camera = Camera(found.intrinsics, torch.eye(4), width, height)
    known = torch.where(found.mask, found.depth, 0.0)
    item = SceneView(view, camera.through(view.original_from_view, *view.original_size), known, found.mask.float())
    scene = Scene((item,), metric=found.metric, model=model.name)
    result = _at_photo_size(item, scene, None, depth_range([known]))
    if found.normals is None:
        return result
    normals = torch.where(found.mask[..., None], found.normals, 0.0)
    return replace(result, normals=normals_at_original_size(normals, view))


def _at_photo_size(item: SceneView, scene: Scene, number: int | None, between: tuple[float, float]) -> Depth:
    return Depth(
        name=item.view.name,
        depth=depth_at_original_size(item.depth, item.view),
        confidence=at_original_size(item.confidence, item.view),
        intrinsics=item.camera.intrinsics,
        metric=scene.metric,
        scene=number,
        range=between,
        model=scene.model,
        seen=item,
    )


@dataclass(frozen=True)
class WrittenDepth:
    """What was written, by name of the photo."""

    out: Path
    photos: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per photo: ``width``, ``height``, ``scene`` (number or None), ``metric``, ``model``, ``nearest`` and ``farthest``
    depth, and the paths of its files (``npz``, ``colour``, ``normals``, ``png``, ``png_scale``, ``exr``, ``ply``)."""
    without: list[str] = field(default_factory=list)
    """Photos that have no depth."""

    def summary(self) -> dict[str, Any]:
        """Facts for a person."""
        joined = sum(facts["scene"] is not None for facts in self.photos.values())
        return {
            "photos": len(self.photos),
            "solved_together": joined,
            "by_themselves": len(self.photos) - joined,
            "without_depth": self.without,
            "model": ", ".join(sorted({facts["model"] for facts in self.photos.values()})),
            "scale": "metric" if all(facts["metric"] for facts in self.photos.values()) else "up to scale",
            "results": str(self.out),
        }


def write_depths(
    photos: PhotosLike,
    out: str | Path,
    *,
    formats: Sequence[Format] = (),
    model: str | PairModel | MonocularModel = "auto",
    alone: bool = False,
    frames: int | None = None,
    every: int | None = None,
    device: str = "auto",
    report: Reporter | None = None,
) -> WrittenDepth:
    """Depth of photos (see ``depth``) as files in ``out``, named after the photos; sub-folders are kept.

    Always ``<stem>.npz`` and ``<stem>_colour.png``; ``<stem>_normals.png`` where the model has normals; by ``formats``
    also ``<stem>_depth.png`` (16 bit, its unit in ``<stem>_depth.json``), ``<stem>.exr`` and ``<stem>.ply``. Photos
    whose names differ only in the ending keep it: ``a.jpg.npz``. ``run.json`` lists all.

    Raises:
        UserError: as ``depth`` does; ``out`` is a folder of the photos themselves, or cannot be written.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise UserError(f"there is no format {unknown[0]}; choose from {', '.join(FORMATS)}")
    report, out = report or Silent(), Path(out)
    found = as_photos(photos, frames=frames, every=every)
    stems = dict(zip([p.name for p in found.photos], unique_stems([p.name for p in found.photos]), strict=True))
    for photo in found.photos:
        if photo.path is not None and photo.path.parent.resolve() == (out / photo.name).parent.resolve():
            raise UserError(
                f"{out} is where the photos are: give another folder as --out, so that none is overwritten."
            )
    written = WrittenDepth(out)
    results = each_depth(found, model=model, alone=alone, device=device, report=report)
    for result in track(report, results, len(found.photos), "writing depth"):
        written.photos[result.name] = _write(result, out / stems[result.name], formats)
    written.without.extend(name for name in stems if name not in written.photos)
    with atomic_write(out / "run.json") as path:
        path.write_text(json.dumps(written.summary() | {"photos": written.photos}, indent=1), encoding="utf-8")
    return written


def _write(result: Depth, stem: Path, formats: Sequence[Format]) -> dict[str, Any]:
    """Write the files of one photo; their paths and some facts."""
    paths = {
        "npz": stem.with_name(stem.name + ".npz"),
        "colour": stem.with_name(stem.name + "_colour.png"),
        "png": stem.with_name(stem.name + "_depth.png"),
        "exr": stem.with_name(stem.name + ".exr"),
        "ply": stem.with_name(stem.name + ".ply"),
    }
    paths = {kind: path for kind, path in paths.items() if kind in ("npz", "colour", *formats)}
    write_depth_npz(
        paths["npz"], result.depth, result.intrinsics, result.confidence, result.normals, metric=result.metric
    )
    write_png(paths["colour"], result.colours())
    if result.normals is not None:
        paths["normals"] = stem.with_name(stem.name + "_normals.png")
        write_png(paths["normals"], normal_colours(result.normals))
    if "png" in formats:
        _, paths["png_scale"] = write_depth_png(paths["png"], result.depth, result.intrinsics, metric=result.metric)
    if "exr" in formats:
        write_exr(paths["exr"], result.depth)
    if "ply" in formats:
        write_ply(paths["ply"], result.points())
    height, width = result.depth.shape
    nearest, farthest = depth_range([result.seen.depth])
    return {
        "width": width,
        "height": height,
        "scene": result.scene,
        "metric": result.metric,
        "model": result.model,
        "nearest": nearest,
        "farthest": farthest,
        **{kind: str(path) for kind, path in paths.items()},
    }
