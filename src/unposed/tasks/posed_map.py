"""A map to localise in: photos with known cameras, and what 3D there is with them."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor

from unposed.errors import UserError
from unposed.geometry.cameras import backproject, map_pixels
from unposed.geometry.transforms import transform_points
from unposed.io.mesh import depth_edges
from unposed.io.nerfstudio import read_transforms_with_files
from unposed.io.photos import ImageRule, Photo, find_photos, make_view
from unposed.io.visloc_resize import AspectRule
from unposed.scene import Scene, SceneView
from unposed.tasks.inputs import as_photo
from unposed.tasks.progress import Reporter
from unposed.views import Camera, Tracks, View

_SPARSE_REACH = 1.0
"""Pixels, of a photo 640 long, within which a match takes the sparse point that the map has there."""
_SAME_ASPECT = _SAME_FOCAL = 0.01
_RELEASED_SIZES = (224, 512)
"""Long sides of the views of released networks, whose localisation protocol has an image rule of its own."""
_MODEL_FOLDERS = ("", "sparse/0", "sparse", "colmap", "colmap/sparse/0")
Sparse = tuple[Float[Tensor, "n 2"], Float[Tensor, "n 3"]]
"""Where points are seen (pixels of the original photo), and the points (world)."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A photo of the map with its camera."""

    name: str
    camera: Camera
    """Of the original photo."""
    photo: Photo | None = None
    """The file; None in a scene, whose views are photos already."""
    dense: SceneView | None = None
    """View and depth of the photo, in a scene."""
    min_confidence: float = 0.0
    """Depth with less is not used."""
    sparse: Sparse | None = None
    """Points of the map that it sees."""

    def view(self, rule: ImageRule) -> View:
        """The photo as a model with that rule sees it.

        Raises:
            UserError: the photo is gone, and the scene holds no view of this rule.
        """
        if self.photo is not None:
            return protocol_view(self.photo, rule)
        assert self.dense is not None
        stored, plan = self.dense.view, rule.plan(self.camera.width, self.camera.height)
        same = np.allclose(plan.original_from_view, stored.original_from_view.numpy(), atol=1e-6)
        if same and (plan.box[2] - plan.box[0], plan.box[3] - plan.box[1]) == stored.size[::-1]:
            return stored
        return protocol_view(self._stored_photo(stored), rule)

    def load(self) -> Image.Image:
        """All pixels of the photo.

        Raises:
            UserError: the photo is gone.
        """
        if self.photo is not None:
            return self.photo.load()
        assert self.dense is not None
        return self._stored_photo(self.dense.view).load()

    def _stored_photo(self, stored: View) -> Photo:
        if stored.path is None or not stored.path.is_file():
            raise UserError(f"{self.name} of the map is no longer where it was; give the photos' folder as --images.")
        return replace(as_photo(stored.path), name=self.name)

    def of_same_kind(self, query: View) -> bool:
        """Whether the query could be from the same camera: the same size, and the same focal length by EXIF."""
        source = self.photo if self.dense is None else self.dense.view
        mine, other = source.exif_focal if source is not None else None, query.exif_focal
        agree = mine == other or (mine is not None and other is not None and abs(mine / other - 1) < _SAME_FOCAL)
        return agree and query.original_size == (self.camera.width, self.camera.height)

    def with_sparse(self, pixels: Float[Tensor, "n 2"], points: Float[Tensor, "n 3"]) -> "Reference":
        """With further sparse points."""
        if self.sparse is not None:
            pixels, points = torch.cat([self.sparse[0].to(pixels), pixels]), torch.cat([self.sparse[1], points])
        return replace(self, sparse=(pixels, points))

    def lift(self, pixels: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
        """World points that the map has at pixels of the original photo; NaN where it has none."""
        points = torch.full((len(pixels), 3), torch.nan, dtype=torch.float64)
        if self.dense is not None and len(pixels):
            points = self._from_depth(self.dense, pixels)
        if self.sparse is not None and len(self.sparse[0]) and len(pixels):
            reach = _SPARSE_REACH * max(self.camera.width, self.camera.height) / 640
            distance, index = cKDTree(self.sparse[0].numpy()).query(pixels.numpy(), distance_upper_bound=reach)
            near = torch.from_numpy(np.isfinite(distance))
            points[near] = self.sparse[1][torch.from_numpy(index)[near]].double()
        return points

    def _from_depth(self, dense: SceneView, pixels: Tensor) -> Tensor:
        """By the depth between the four nearest pixels (linear in 1 / depth, as planes are), not where it jumps."""
        height, width = dense.depth.shape
        place = map_pixels(torch.linalg.inv(dense.view.original_from_view.double()), pixels.double())
        usable = (dense.depth > 0) & dense.depth.isfinite() & (dense.confidence >= self.min_confidence)
        usable &= ~depth_edges(dense.depth)
        x, y = (place[:, k].floor().long().clamp(0, side - 2) for k, side in enumerate((width, height)))
        part = place - torch.stack([x, y], -1)
        known, inverse = (part >= -0.5).all(-1) & (part <= 1.5).all(-1), torch.zeros(len(place), dtype=torch.float64)
        for right, below in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = (part[:, 0] if right else 1 - part[:, 0]) * (part[:, 1] if below else 1 - part[:, 1])
            known &= usable[y + below, x + right]
            inverse += weight / dense.depth[y + below, x + right].double()
        depth = torch.where(known & (inverse > 0), 1 / inverse, torch.nan)
        local = backproject(pixels.double(), depth, self.camera.intrinsics.double())
        return transform_points(self.camera.world_from_camera.double(), local)


@dataclass(frozen=True, eq=False)
class PosedMap:
    """Photos with known cameras in one world."""

    references: tuple[Reference, ...]
    metric: bool | None
    """Whether lengths are metres; None where the files do not say."""

    @property
    def fingerprint(self) -> str:
        """Tells maps apart whose answers may differ."""
        digest = hashlib.blake2b(digest_size=16)
        for reference in self.references:
            camera = reference.camera
            photo = "" if reference.photo is None else reference.photo.digest
            digest.update(f"{reference.name} {photo} {camera.width} {camera.height}".encode())
            digest.update(camera.intrinsics.double().numpy().tobytes())
            digest.update(camera.world_from_camera.double().numpy().tobytes())
            if reference.dense is not None:
                digest.update(reference.dense.depth[::16, ::16].numpy().tobytes())
        return digest.hexdigest()


def protocol_view(photo: Photo, rule: ImageRule) -> View:
    """The photo as a model sees it; for a released network, cropped to an aspect ratio that it was trained on.

    Raises:
        UserError: the photo can no longer be read, or is too narrow for the model.
    """
    if rule.size not in _RELEASED_SIZES:
        return make_view(photo, rule)
    plan = AspectRule(rule.size, rule.patch).plan(*photo.size)
    pixels = torch.from_numpy(np.array(photo.load())).permute(2, 0, 1).float()
    image = plan.apply(pixels).round().to(torch.uint8).permute(1, 2, 0)
    return View(photo.name, image, plan.original_from_view, photo.size, photo.path, photo.exif_focal)


def read_map(source: Scene | str | Path, images: str | Path | None, report: Reporter) -> PosedMap:
    """The map that a user means.

    Args:
        source: a scene or its folder, a folder with a COLMAP model in it (or in ``sparse/0`` or ``colmap``), a
            ``transforms.json`` or the folder of one.
        images: folder of the map's photos, where they are not beside the map.
        report: hears of photos that are missing.

    Raises:
        UserError: none of these, a damaged one, or none of its photos is found.
    """
    if isinstance(source, Scene):
        return _from_scene(source, "scene", images, report)
    path = Path(source)
    if not path.exists():
        raise UserError(f"There is no map at {path}: give a scene, a COLMAP model folder or a transforms.json.")
    if path.is_file():
        return _from_transforms(path, images, report)
    if (path / "scene.json").is_file():
        return _from_scene(Scene.load(path), str(path), images, report)
    for folder in (path / name for name in _MODEL_FOLDERS):
        if (folder / "cameras.bin").is_file() or (folder / "cameras.txt").is_file():
            return _from_colmap(folder, images, report)
    if (path / "transforms.json").is_file():
        return _from_transforms(path / "transforms.json", images, report)
    raise UserError(f"{path} holds no map: no scene.json, no COLMAP model and no transforms.json; give one of these.")


def _from_scene(scene: Scene, name: str, images: str | Path | None, report: Reporter) -> PosedMap:
    if not scene.views:
        raise UserError(f"{name} is a scene without views; reconstruct it again.")
    if scene.others:
        report.say(f"{name} has {len(scene.others) + 1} components; only the largest is used")
    threshold, tracks = scene.default_min_confidence, scene.tracks
    references = []
    for k, item in enumerate(scene.views):
        points = None if tracks is None else tracks_of_view(tracks, k)
        if (place := _place(images, item.view.name)) is not None:
            item = replace(item, view=replace(item.view, path=place))
        references.append(Reference(item.view.name, item.camera, None, item, threshold, points))
    return PosedMap(tuple(references), scene.metric)


def _from_colmap(folder: Path, images: str | Path | None, report: Reporter) -> PosedMap:
    from unposed.io.colmap import read_colmap

    model = read_colmap(folder)
    above = [folder, *folder.absolute().parents[:3]]
    candidates = [Path(images)] if images is not None else [place for f in above for place in (f / "images", f)]
    found = [{name: place / name for name in model.cameras if (place / name).is_file()} for place in candidates]
    return _posed(str(folder), model.cameras, max(found, key=len), images, report, model.tracks)


def _from_transforms(path: Path, images: str | Path | None, report: Reporter) -> PosedMap:
    frames = read_transforms_with_files(path)
    cameras = {name: camera for name, (camera, _) in frames.items()}
    places = {name: _place(images, name, file.name) or file for name, (_, file) in frames.items()}
    found = {name: place for name, place in places.items() if place.is_file()}
    return _posed(str(path), cameras, found, images, report, None)


def _posed(
    name: str,
    cameras: Mapping[str, Camera],
    files: Mapping[str, Path],
    images: str | Path | None,
    report: Reporter,
    tracks: Tracks | None,
) -> PosedMap:
    """A map of those photos that are there."""
    if not cameras:
        raise UserError(f"{name} holds no posed photo; give another map.")
    photos = _photos(files)
    references = []
    for k, (photo_name, camera) in enumerate(cameras.items()):
        photo = photos.get(photo_name)
        affine = None if photo is None else _photo_from_camera(camera, photo)
        if photo is not None and affine is not None:
            reference = Reference(photo_name, camera.through(affine, *photo.size), photo)
            if tracks is not None:
                pixels, points = tracks_of_view(tracks, k)
                reference = reference.with_sparse(map_pixels(affine, pixels), points)
            references.append(reference)
    if not references:
        raise UserError(
            f"None of the {len(cameras)} photos of {name} is {f'in {images}' if images else 'beside it'}; "
            "give the folder that holds them as --images."
        )
    if len(references) < len(cameras):
        report.say(f"{len(cameras) - len(references)} of the {len(cameras)} photos of the map are missing or unusable")
    return PosedMap(tuple(references), None)


def _place(images: str | Path | None, *names: str) -> Path | None:
    """The file of one of these names in the folder that the user gave."""
    if images is None:
        return None
    return next((Path(images) / name for name in names if (Path(images) / name).is_file()), None)


def _photos(files: Mapping[str, Path]) -> dict[str, Photo]:
    """The usable ones of these files, by the same names."""
    paths = {name: Path(os.path.abspath(file)) for name, file in files.items()}
    if not paths:
        return {}
    try:
        found = {photo.path: photo for photo in find_photos(list(dict.fromkeys(paths.values()))).photos}
    except UserError:  # none of them is usable: who asks says what that means
        return {}
    return {name: replace(found[path], name=name) for name, path in paths.items() if path in found}


def _photo_from_camera(camera: Camera, photo: Photo) -> Tensor | None:
    """Affine map from the camera's pixels to the photo's, which may have another size but not another shape."""
    width, height = photo.size
    if abs(width * camera.height / (height * camera.width) - 1) > _SAME_ASPECT:
        return None
    x, y = width / camera.width, height / camera.height
    return torch.tensor([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]], dtype=torch.float64)


def tracks_of_view(tracks: Tracks, k: int) -> Sparse:
    """Pixels (original photo) and world points of the tracks that view ``k`` sees."""
    mine = tracks.view == k
    return tracks.pixel[mine], tracks.points[tracks.track[mine]]
