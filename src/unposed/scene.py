"""A reconstructed scene: views with cameras and depth maps in one world frame; saved, loaded and exported.

On disk a scene is a folder: ``scene.json`` (everything small, readable) and ``maps.safetensors`` (depth, confidence,
images and tracks; memory-mapped on load). ``scene.json`` is written last, so a folder that has one is whole. Views that
could not be joined to the rest form further components, each a scene in its own frame in ``component_2``, ...
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unposed.errors import UserError
from unposed.geometry.cameras import pointmap_from_depth
from unposed.geometry.transforms import rigid, transform_points
from unposed.io.atomic import atomic_write
from unposed.io.depth_files import at_original_size, depth_at_original_size, unique_stems, write_depth
from unposed.io.mesh import depth_edges
from unposed.io.nerfstudio import write_transforms
from unposed.io.ply import write_ply
from unposed.io.preview import render_preview, write_png
from unposed.io.scene_text import check_tracks, describe_view, parse_view
from unposed.io.sky import sky_mask
from unposed.io.training_photos import place_photos
from unposed.views import Camera, PointCloud, Tracks, View

SCHEMA_VERSION = 1
"""Version of ``scene.json``; raised when a reader of the old one would misread the new one."""
_SCENE, _MAPS = "scene.json", "maps.safetensors"
_MAX_GLB_POINTS = 1_000_000  # more than that and browsers stumble
_MAX_PREVIEW = 400_000  # points in a picture, a second of work
_MAX_SPARSE = 200_000  # points to start a splatting trainer from
_DAMAGE = (OSError, SafetensorError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError)
_TRACK_KEYS = ("points", "colours", "view", "pixel", "track")


@dataclass(frozen=True, eq=False)
class SceneView:
    """A view with its camera and its depth map."""

    view: View
    camera: Camera
    """Camera of the ORIGINAL photo: intrinsics, width and height are in its pixels."""
    depth: Float[Tensor, "height width"]
    """Depth along the camera's z axis at the pixels of ``view.image``; 0 where unknown."""
    confidence: Float[Tensor, "height width"]
    """The model's own definition; larger is better."""

    @property
    def view_camera(self) -> Camera:
        """The camera for the pixels of ``view.image`` and ``depth``."""
        height, width = self.view.size
        return self.camera.through(torch.linalg.inv(self.view.original_from_view.double()), width, height)

    def pointmap(self) -> Float[Tensor, "height width 3"]:
        """World point of every pixel of ``view.image``; meaningless where the depth is 0."""
        camera = self.view_camera
        return transform_points(camera.world_from_camera, pointmap_from_depth(self.depth, camera.intrinsics))


@dataclass(frozen=True, eq=False)
class Scene:
    """Views in one world frame, and how they were found."""

    views: tuple[SceneView, ...]
    tracks: Tracks | None = None
    metric: bool = False
    """Whether lengths are metres; else the scene is known up to scale."""
    model: str = ""
    """Name of the model that predicted it, as in the registry."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Versions, options, timings, source; anything JSON can hold."""
    unregistered: tuple[str, ...] = ()
    """Names of photos for which no pose was found."""
    others: tuple["Scene", ...] = ()
    """Further components, each in its own frame and scale: never glued to this one."""

    @property
    def cameras(self) -> dict[str, Camera]:
        """Camera of each original photo, by the name of its view."""
        return {item.view.name: item.camera for item in self.views}

    def __getitem__(self, name: str) -> SceneView:
        """The view of that name.

        Raises:
            KeyError: no view of that name in this component.
        """
        for item in self.views:
            if item.view.name == name:
                return item
        raise KeyError(name)

    @property
    def default_min_confidence(self) -> float:
        """Confidence that ``points`` asks for by default: 1.5, or less where not even a tenth of the pixels has it."""
        known = [item.confidence[item.depth > 0].flatten() for item in self.views]
        known = [values[:: max(1, len(values) * len(known) // 100_000)] for values in known if len(values)]
        return min(1.5, float(torch.cat(known).quantile(0.9))) if known else 1.5

    def points(self, min_confidence: float | None = None, max_points: int | None = None) -> PointCloud:
        """World points of all pixels with known depth and at least that confidence.

        Args:
            min_confidence: in the model's own scale; ``None`` is :attr:`default_min_confidence`.
            max_points: keep at most so many, drawn evenly at random (the same ones every time).
        """
        if min_confidence is None:
            min_confidence = self.default_min_confidence
        positions, colours, confidence = [], [], []
        for item in self.views:
            keep = (item.depth > 0) & item.depth.isfinite() & (item.confidence >= min_confidence)
            positions.append(item.pointmap()[keep])
            colours.append(item.view.image[keep])
            confidence.append(item.confidence[keep])
        if not positions:
            return PointCloud(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8), torch.zeros(0))
        cloud = PointCloud(torch.cat(positions), torch.cat(colours), torch.cat(confidence))
        count = len(cloud.confidence)
        if max_points is None or count <= max_points:
            return cloud
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:max_points].sort().values
        return PointCloud(cloud.positions[chosen], cloud.colours[chosen], cloud.confidence[chosen])

    def transformed(
        self,
        scale: float = 1.0,
        rotation: Float[Tensor, "3 3"] | None = None,
        translation: Float[Tensor, "3"] | None = None,
        metric: bool | None = None,
    ) -> "Scene":
        """The scene in another world frame: ``x_new = scale * rotation @ x_old + translation``.

        Poses, depth maps and tracks change together. ``metric`` says whether the new lengths are metres; by default as
        before. Other components have frames of their own and stay as they are.
        """
        rotation = torch.eye(3) if rotation is None else rotation
        translation = torch.zeros(3) if translation is None else translation
        new_from_old = rigid(scale * rotation.float(), translation.float())
        views = tuple(
            replace(item, camera=_moved(item.camera, rotation, new_from_old), depth=item.depth * scale)
            for item in self.views
        )
        tracks = self.tracks
        if tracks is not None:
            tracks = replace(tracks, points=transform_points(new_from_old, tracks.points))
        return replace(self, views=views, tracks=tracks, metric=self.metric if metric is None else metric)

    def without_sky(self) -> "Scene":
        """The scene with unknown depth where photos look like sky by colour (:func:`sky_mask`, a rule of thumb)."""
        views = tuple(
            replace(item, depth=torch.where(sky_mask(item.view.image), 0.0, item.depth)) for item in self.views
        )
        return replace(self, views=views)

    def save(self, directory: str | Path) -> None:
        """Write the scene into a folder; files of others in it stay. A crash leaves a whole scene or none.

        Raises:
            UserError: the folder cannot be written.
        """
        directory = Path(directory)
        tensors = {key: value.contiguous() for key, value in self._tensors().items()}
        with atomic_write(directory / _MAPS) as path:
            path.touch()
            mode = path.stat().st_mode
            save_file(tensors, path)
            path.chmod(mode)  # save_file leaves a file that only its owner can read
            (directory / _SCENE).unlink(missing_ok=True)
        for k, other in enumerate(self.others, start=2):
            other.save(directory / f"component_{k}")
        self._remove_stale_components(directory)
        with atomic_write(directory / _SCENE) as path:
            path.write_text(json.dumps(self._description(), indent=1, default=str), encoding="utf-8")

    @classmethod
    def load(cls, directory: str | Path) -> "Scene":
        """Read a scene folder; depth, confidence and images stay on the disk until they are touched.

        Raises:
            UserError: no scene there, a damaged one, or one of a newer version of this package.
        """
        directory = Path(directory)
        if not (directory / _SCENE).is_file():
            raise UserError(f"{directory} holds no {_SCENE}; give a folder that `unposed reconstruct` or save() wrote.")
        try:
            text = json.loads((directory / _SCENE).read_text(encoding="utf-8"))
            version = text["schema"]
            if version != SCHEMA_VERSION:
                raise UserError(
                    f"{directory / _SCENE} has schema version {version}, this package reads {SCHEMA_VERSION}; "
                    "use the version of unposed that wrote it."
                )
            with safe_open(directory / _MAPS, framework="pt") as maps:
                scene = _read(text, {key: maps.get_tensor(key) for key in maps.keys()})  # noqa: SIM118
        except (
            OSError,
            SafetensorError,
            KeyError,
            TypeError,
            ValueError,
            ArithmeticError,
            RuntimeError,
            AttributeError,
        ) as error:
            raise UserError(f"The scene in {directory} is damaged ({error}); reconstruct or copy it again.") from error
        others = tuple(cls.load(directory / f"component_{k + 2}") for k in range(text["other_components"]))
        return replace(scene, others=others)

    def export(self, path: str | Path, min_confidence: float | None = None, mesh: bool = False) -> None:
        """Write for other programs; the name says what. Cameras are those of the original photos.

        ========================== =====================================================================
        ``x.ply``                  point cloud with colour and confidence
        ``x.glb``                  points (or a surface: ``mesh``) and camera frusta with their photos
        folder ``...colmap``       the model as text; ``sparse/0`` (binary), ``images``: splatting trainers
        ``transforms.json``        nerfstudio, with a point cloud beside it
        folder ``...depth``        16-bit PNG and NPZ of every depth map, at the original photos' sizes
        ``x.png``                  a picture of points and cameras
        ========================== =====================================================================

        Only this component is written. Points below ``min_confidence`` stay out (see :meth:`points`); sparse points are
        the tracks where there are any.

        Raises:
            UserError: a name of no known kind, a scene without views, or a place that cannot be written.
        """
        path = Path(path)
        writers: dict[str, Callable[[], None]] = {
            ".ply": lambda: write_ply(path, self.points(min_confidence)),
            ".glb": lambda: self._export_glb(path, min_confidence, mesh),
            ".json": lambda: write_transforms(path, self._views, self._cameras, self.sparse_points(min_confidence)),
            ".png": lambda: write_png(path, render_preview(self.points(min_confidence, _MAX_PREVIEW), self._cameras)),
            "colmap": lambda: self._export_colmap(path, min_confidence),
            "depth": lambda: self._export_depth(path),
        }
        if not self.views:
            raise UserError(f"The scene has no views; there is nothing to write to {path}.")
        for ending, write in writers.items():
            if path.name.lower().endswith(ending):
                return write()
        raise UserError(
            f"{path.name} names no known kind of file: use a name ending in .ply, .glb, .json (nerfstudio) or .png, "
            "or a folder whose name ends in colmap or depth."
        )

    @property
    def _views(self) -> list[View]:
        return [item.view for item in self.views]

    @property
    def _cameras(self) -> list[Camera]:
        return [item.camera for item in self.views]

    def sparse_points(self, min_confidence: float | None = None) -> PointCloud:
        """Tracks without their observations; else some of the dense points."""
        if self.tracks is None or len(self.tracks.points) == 0:
            return self.points(min_confidence, _MAX_SPARSE)
        return PointCloud(self.tracks.points, self.tracks.colours, torch.ones(len(self.tracks.points)))

    def _export_glb(self, path: Path, min_confidence: float | None, mesh: bool) -> None:
        from unposed.io.gltf import surface, write_glb  # trimesh takes half a second to import

        threshold = self.default_min_confidence if min_confidence is None else min_confidence
        cameras = [item.view_camera for item in self.views]
        images = [item.view.image for item in self.views]
        if mesh:
            valid = [(i.depth > 0) & (i.confidence >= threshold) & ~depth_edges(i.depth) for i in self.views]
            parts = [surface(i.pointmap(), i.view.image, v) for i, v in zip(self.views, valid, strict=True) if v.any()]
            write_glb(path, parts, cameras, images)
        else:
            write_glb(path, self.points(threshold, _MAX_GLB_POINTS), cameras, images)

    def _export_colmap(self, path: Path, min_confidence: float | None) -> None:
        from unposed.io.colmap import write_colmap, write_colmap_text

        placed = place_photos(path / "images", self._views, self._cameras)
        points: Tracks | PointCloud = self.sparse_points(min_confidence)
        if self.tracks is not None and len(self.tracks.points):
            maps = torch.stack([photo.file_from_original for photo in placed])[self.tracks.view]
            pixel = (maps[:, :2, :2] @ self.tracks.pixel.double()[..., None])[..., 0] + maps[:, :2, 2]
            points = replace(self.tracks, pixel=pixel.float())
        cameras = {photo.name: photo.camera for photo in placed}
        write_colmap(path / "sparse" / "0", cameras, points)
        write_colmap_text(path, cameras, points)

    def _export_depth(self, path: Path) -> None:
        for item, stem in zip(self.views, unique_stems([view.name for view in self._views]), strict=True):
            depth = depth_at_original_size(item.depth, item.view)
            confidence = at_original_size(item.confidence, item.view)
            write_depth(path / stem, depth, item.camera.intrinsics, confidence, metric=self.metric)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {}
        for k, item in enumerate(self.views):
            tensors[f"depth.{k}"] = item.depth.float()
            tensors[f"confidence.{k}"] = item.confidence.float()
            tensors[f"image.{k}"] = item.view.image
        if self.tracks is not None:
            tensors |= {f"tracks.{key}": getattr(self.tracks, key) for key in _TRACK_KEYS}
        return tensors

    def _description(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA_VERSION,
            "units": "metres" if self.metric else "up to scale",
            "model": self.model,
            "views": [describe_view(item.view, item.camera) for item in self.views],
            "has_tracks": self.tracks is not None,
            "unregistered": list(self.unregistered),
            "other_components": len(self.others),
            "provenance": dict(self.provenance),
        }

    def _remove_stale_components(self, directory: Path) -> None:
        """Delete what an earlier, more fragmented scene left: our two files only."""
        k = len(self.others) + 2
        while (stale := directory / f"component_{k}").is_dir() and (stale / _SCENE).is_file():
            (stale / _SCENE).unlink()
            (stale / _MAPS).unlink(missing_ok=True)
            if not any(stale.iterdir()):
                stale.rmdir()
            k += 1


def _moved(camera: Camera, rotation: Tensor, new_from_old: Tensor) -> Camera:
    pose = rigid(rotation.to(camera.world_from_camera) @ camera.world_from_camera[:3, :3],
                 transform_points(new_from_old.to(camera.world_from_camera), camera.centre))  # fmt: skip
    return replace(camera, world_from_camera=pose)


def _read(text: dict[str, Any], tensors: dict[str, Tensor]) -> Scene:
    """A scene without its other components.

    Raises:
        KeyError, TypeError, ValueError: something is missing, of the wrong kind or contradicts itself.
    """
    views = tuple(_read_view(described, k, tensors) for k, described in enumerate(text["views"]))
    if len({item.view.name for item in views}) < len(views):
        raise ValueError("two views have one name")
    tracks = None
    if text["has_tracks"]:
        tracks = Tracks(*(tensors[f"tracks.{key}"] for key in _TRACK_KEYS))
        check_tracks(tracks, len(views))
    if not (isinstance(text["other_components"], int) and 0 <= text["other_components"] < 10_000):
        raise ValueError("the number of components is wrong")
    return Scene(
        views=views,
        tracks=tracks,
        metric={"metres": True, "up to scale": False}[text["units"]],
        model=str(text["model"]),
        provenance=dict(text["provenance"]),
        unregistered=tuple(str(name) for name in text["unregistered"]),
    )


def _read_view(described: dict[str, Any], k: int, tensors: dict[str, Tensor]) -> SceneView:
    depth, confidence, image = (tensors[f"{kind}.{k}"] for kind in ("depth", "confidence", "image"))
    if depth.dim() != 2 or confidence.shape != depth.shape or image.shape != (*depth.shape, 3):
        raise ValueError(f"maps of view {k} have the wrong size")
    if image.dtype != torch.uint8 or depth.dtype != torch.float32 or confidence.dtype != torch.float32:
        raise ValueError(f"maps of view {k} have the wrong type")
    view, camera = parse_view(described, image)
    return SceneView(view, camera, depth, confidence)
