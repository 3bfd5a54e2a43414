"""Photos in: find the usable ones of a folder, glob, list or video, and turn them into views.

Nothing a photo folder can hold stops the work: what is no usable photo is skipped with a reason.
"""

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from unposed.errors import UserError
from unposed.io import exif
from unposed.io.decode import UnreadablePicture, decode, open_picture, size_after_rotation
from unposed.io.resize import ImageRule, ResizePlan
from unposed.views import View

__all__ = ["ImageRule", "Photo", "PhotoSet", "ResizePlan", "Skipped", "find_photos", "make_view", "make_views"]

MIN_SIDE = 64
"""Pictures with a shorter side than this many pixels are icons, not photos."""
MAX_ASPECT = 16
"""Pictures longer than this many times their width are strips, not photos."""

_PHOTO_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".bmp", ".ppm", ".pgm",
}  # fmt: skip
_MAP_NAME = re.compile(r"(?P<stem>.+)_(depth|disparity|mask)$")
_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, eq=False)
class Photo:
    """A usable photo, checked but not held in memory at full size."""

    name: str
    """Unique in its set: relative to the source folder, with forward slashes."""
    path: Path | None
    """The file; None for a frame of a video."""
    size: tuple[int, int]
    """(width, height) after EXIF rotation."""
    exif_focal: float | None
    """Focal length in pixels of the full photo as EXIF tells it; a hint."""
    digest: str
    """Hash of the file's bytes."""
    data: bytes | None = field(default=None, repr=False)
    """The encoded picture, where it is no file."""

    def load(self) -> Image.Image:
        """Full-size RGB pixels after EXIF rotation.

        Raises:
            UserError: the file has changed since it was found and can no longer be read.
        """
        try:
            with open_picture(_source(self)) as image:
                return decode(image)
        except UnreadablePicture as error:
            raise UserError(f"{self.name} can no longer be read: {error}; take it out and try again.") from error


@dataclass(frozen=True)
class Skipped:
    """A file that is no usable photo, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class PhotoSet:
    """The usable photos of a source in natural order of their names, and what was left out."""

    photos: list[Photo]
    skipped: list[Skipped]


def find_photos(source: str | Path | Sequence[str | Path]) -> PhotoSet:
    """Usable photos of a folder, a glob pattern, one file, or a list of files and folders.

    Raises:
        UserError: there is no such place, or no usable photo in it.
    """
    files, base = _files_of(source)
    names = {file: _relative_name(file, base) for file in files}
    files.sort(key=lambda file: _natural_key(names[file]))
    with ThreadPoolExecutor(_THREADS) as pool:
        results = list(pool.map(lambda file: _inspect(file, names[file]), files))
    photos = [result for result in results if isinstance(result, Photo)]
    skipped = [result for result in results if isinstance(result, Skipped)]
    if not photos:
        raise UserError(f"No usable photo in {source}; give a folder of photos.")
    return PhotoSet(photos, skipped)


def make_view(photo: Photo, rule: ImageRule) -> View:
    """The photo resized and cropped by the model's rule, with the exact way back."""
    plan = rule.plan(*photo.size)
    pixels = np.asarray(plan.apply(photo.load()))
    return View(
        name=photo.name,
        image=torch.from_numpy(pixels.copy()),
        original_from_view=torch.from_numpy(plan.original_from_view),
        original_size=photo.size,
        path=photo.path,
        exif_focal=photo.exif_focal,
    )


def make_views(photos: Sequence[Photo], rule: ImageRule, progress: Callable[[int, int], None] | None = None) -> list[View]:
    """Views of many photos, decoded by a few threads; ``progress(done, total)`` is called after each."""
    views = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for view in pool.map(lambda photo: make_view(photo, rule), photos):
            views.append(view)
            if progress:
                progress(len(views), len(photos))
    return views


def _source(photo: Photo) -> Path | bytes:
    if photo.data is not None:
        return photo.data
    assert photo.path is not None
    return photo.path


def _inspect(path: Path, name: str) -> Photo | Skipped:
    """Check one file: header, size, and that its pixels decode (a JPEG at reduced size, which is cheaper)."""
    try:
        data = path.read_bytes()
        with open_picture(data) as image:
            size = size_after_rotation(image)
            focal = exif.focal_in_pixels(image)
            if min(size) < MIN_SIDE:
                return Skipped(name, f"too small: {size[0]} x {size[1]} pixels")
            image.draft("RGB", (256, 256))
            decode(image)
    except UnreadablePicture as error:
        return Skipped(name, str(error))
    except OSError as error:
        return Skipped(name, f"cannot be read ({error.strerror})")
    return Photo(name, path, size, focal, hashlib.blake2b(data, digest_size=16).hexdigest())


def _files_of(source: str | Path | Sequence[str | Path]) -> tuple[list[Path], Path]:
    """Every file that a source names, and the folder that their names are relative to."""
    places = [source] if isinstance(source, (str, Path)) else list(source)
    files: dict[Path, None] = {}
    for place in places:
        files.update(dict.fromkeys(_files_at(Path(os.path.abspath(os.path.expanduser(place))))))
    if not files:
        raise UserError(f"No photo in {source}; give a folder of photos.")
    if len(places) == 1 and (folder := Path(os.path.abspath(os.path.expanduser(places[0])))).is_dir():
        return list(files), folder
    return list(files), Path(os.path.commonpath([file.parent for file in files]))


def _files_at(place: Path) -> Iterable[Path]:
    if place.is_dir():
        return [file for file in place.iterdir() if file.is_file() and not file.name.startswith(".")]
    if place.exists():
        return [place]
    matches = [Path(match) for match in glob.glob(str(place), recursive=True)]
    if not matches:
        raise UserError(f"There is no {place}; give a folder of photos, photos, or a video.")
    return [file for match in matches if match.is_file() for file in [match]]


def _relative_name(file: Path, base: Path) -> str:
    name = PurePath(os.path.relpath(file, base)).as_posix()
    return os.fsencode(name).decode("utf-8", "replace")


def _natural_key(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key that puts img2 before img10, whatever the case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part], name
