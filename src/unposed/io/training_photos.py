"""Photos for programs that cannot read every photo: with exactly the pixels that the exported cameras refer to."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unposed.io import exif
from unposed.io.atomic import atomic_write
from unposed.io.decode import UnreadablePicture, decode, open_picture
from unposed.views import Camera, View

_PLAIN_FORMATS = ("JPEG", "PNG")
_PLAIN_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, eq=False)
class TrainingPhoto:
    """A picture file and its camera."""

    name: str
    """File name relative to the folder of all of them, with forward slashes."""
    camera: Camera
    """Camera for the file's pixels: the original photo's, or the view's where only the view is at hand."""
    file_from_original: Float[Tensor, "3 3"]
    """Affine map (float64) from the original photo's pixels to the file's."""


def usable_as_is(view: View) -> bool:
    """Whether every program reads the photo's file as we do: a plain format, and not rotated by EXIF."""
    if view.path is None or view.path.suffix.lower() not in _PLAIN_SUFFIXES:
        return False
    try:
        with open_picture(view.path) as image:
            upright = exif.upright(image) is None and image.size == view.original_size
            return upright and image.format in _PLAIN_FORMATS
    except UnreadablePicture:
        return False


def place_photos(folder: str | Path, views: Sequence[View], cameras: Sequence[Camera]) -> list[TrainingPhoto]:
    """Put a plain picture of every view into a folder: a link to the photo where possible, else a new file.

    Rotated or unusual photos are written again, upright; of a video frame or a photo that is gone, the network's view
    is written, and its camera is that of the view. Files of the same names are replaced.

    Args:
        folder: made if missing.
        views: names become file names; a suffix is added where there is no plain one.
        cameras: cameras of the original photos.

    Raises:
        UserError: the folder cannot be written.
    """
    return [_place(Path(folder), view, camera) for view, camera in zip(views, cameras, strict=True)]


def _place(folder: Path, view: View, camera: Camera) -> TrainingPhoto:
    if usable_as_is(view):
        assert view.path is not None
        target = folder / view.name
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(view.path, target)
        return TrainingPhoto(view.name, camera, torch.eye(3, dtype=torch.float64))
    photo = _upright(view)
    if photo is not None:
        name = _plain_name(view.name, ".jpg")
        with atomic_write(folder / name) as path:
            photo.save(path, quality=95, subsampling=0)
        return TrainingPhoto(name, camera, torch.eye(3, dtype=torch.float64))
    name = _plain_name(view.name, ".png")
    with atomic_write(folder / name) as path:
        Image.fromarray(view.image.numpy()).save(path)
    view_from_original = torch.linalg.inv(view.original_from_view)
    height, width = view.size
    return TrainingPhoto(name, camera.through(view_from_original, width, height), view_from_original)


def _plain_name(name: str, suffix: str) -> str:
    return name if Path(name).suffix.lower() in _PLAIN_SUFFIXES else name + suffix


def _upright(view: View) -> Image.Image | None:
    """The whole photo after EXIF rotation, or None where its file is no more what it was."""
    if view.path is None:
        return None
    try:
        with open_picture(view.path) as image:
            photo = decode(image)
    except UnreadablePicture:
        return None
    return photo if photo.size == view.original_size else None


def _link(source: Path, target: Path) -> None:
    if target.is_symlink() or target.exists():
        if target.exists() and target.samefile(source) and not target.is_symlink():
            return  # the photo itself lives here
        target.unlink()
    try:
        target.symlink_to(source.resolve())
    except OSError:  # a system or a disk without links
        shutil.copyfile(source, target)
