"""Photos in: find the usable ones of a folder, glob, list or video, and turn them into views.

Nothing a photo folder can hold stops the work: what is no usable photo is skipped with a reason.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from unposed.errors import UserError
from unposed.io import exif, videos
from unposed.io.decode import UnreadablePicture, decode, open_picture, upright_size
from unposed.io.resize import ImageRule
from unposed.io.sources import PHOTO_SUFFIXES, Source, describe, named_files
from unposed.views import View

__all__ = ["ImageRule", "Photo", "PhotoSet", "Skipped", "find_photos", "make_view", "make_views"]

MIN_SIDE = 64
"""Pictures with a side shorter than this many pixels are icons, not photos."""
MAX_ASPECT = 16
"""Pictures longer than this many times their width are strips, not photos."""

_NO_PICTURE = "not a picture"
_MAP_OF_PHOTO = re.compile(r"(.+)_(?:depth|disparity|confidence|normals?|mask)")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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
    """Hash of the encoded bytes."""
    data: bytes | None = field(default=None, repr=False)
    """The encoded picture where it is no file."""

    def load(self) -> Image.Image:
        """Full-size RGB pixels after EXIF rotation.

        Raises:
            UserError: the file has changed since it was found and can no longer be read.
        """
        source = self.path if self.data is None else self.data
        assert source is not None
        try:
            with open_picture(source) as image:
                pixels = decode(image)
        except UnreadablePicture as error:
            raise UserError(f"{self.name} can no longer be used: {error}; remove it and try again.") from error
        if pixels.size != self.size:
            raise UserError(f"{self.name} has changed while it was being used; try again.")
        return pixels


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
    in_sequence: bool = False
    """Whether the photos are frames of one video, in order."""


def find_photos(
    source: Source, *, every: int | None = None, frames: int | None = None, by_motion: bool = False
) -> PhotoSet:
    """Usable photos of a folder, a glob pattern, one photo, a list of files and folders, or one video.

    A folder means its own files, in natural order (img2 before img10); if none of them is a photo, the photos of all
    folders below it. Skipped with a reason: what is no picture, is damaged, has a side below ``MIN_SIDE`` or more
    pixels than ``decode.MAX_PIXELS``, repeats another photo (the same bytes, or the same decoded pixels), and the maps
    that belong to a photo (``a_depth.png``, ``a_mask.png``, ... beside ``a.jpg``).

    Args:
        source: What to read.
        every: Of a video, take every n-th frame.
        frames: Of a video, take so many frames, evenly spread; by default up to ``videos.DEFAULT_FRAMES``.
        by_motion: Spread the frames evenly over the motion in the picture instead of over time.

    Raises:
        UserError: a place does not exist or holds no usable photo, or frames are asked of something that is no video.
    """
    named = named_files(source)
    if len(named) == 1 and (path := next(iter(named.values()))).suffix.lower() in videos.SUFFIXES:
        found = _find_frames(path, every, frames, by_motion)
    elif every is not None or frames is not None or by_motion:
        raise UserError(
            f"Only a video has frames to choose from, and {describe(source)} is none; leave the choice out."
        )
    else:
        found = _find_files(named)
    if found.photos:
        return found
    telling = min(found.skipped, key=lambda skipped: skipped.reason == _NO_PICTURE)
    raise UserError(
        f"There is no usable photo in {describe(source)} ({telling.name}: {telling.reason}); give other photos."
    )


def make_view(photo: Photo, rule: ImageRule) -> View:
    """The photo resized and cropped by a model's rule, with the exact way back to its own pixels.

    Raises:
        UserError: the photo can no longer be read, or is too narrow for the model.
    """
    plan = rule.plan(*photo.size)
    return View(
        name=photo.name,
        image=torch.from_numpy(np.array(plan.apply(photo.load()))),
        original_from_view=torch.from_numpy(plan.original_from_view),
        original_size=photo.size,
        path=photo.path,
        exif_focal=photo.exif_focal,
    )


def make_views(
    photos: Sequence[Photo], rule: ImageRule, progress: Callable[[int, int], None] | None = None
) -> list[View]:
    """Views of many photos, decoded by a few threads; ``progress(done, total)`` is called after each one."""
    views = []
    for view in _in_threads(lambda photo: make_view(photo, rule), photos):
        views.append(view)
        if progress is not None:
            progress(len(views), len(photos))
    return views


def _find_files(named: dict[str, Path]) -> PhotoSet:
    """Look into every file; of files that show the same picture the first name stays."""
    first_with: dict[str, str] = {}
    photos, skipped = [], []
    results = _in_threads(lambda item: _inspect(*item, named), list(named.items()))
    for result in results:
        if isinstance(result, Skipped):
            skipped.append(result)
            continue
        photo, pixel_digest = result
        twin = first_with.get(photo.digest) or first_with.get(pixel_digest)
        if twin is not None:
            skipped.append(Skipped(photo.name, f"the same picture as {twin}"))
            continue
        first_with[photo.digest] = first_with[pixel_digest] = photo.name
        photos.append(photo)
    return PhotoSet(photos, skipped)


def _inspect(name: str, path: Path, named: dict[str, Path]) -> tuple[Photo, str] | Skipped:
    """Check a file and return its photo with a digest of its pixels.

    The pixels are decoded once, to see whether they are all there: of a JPEG at a reduced size, which is several times
    cheaper and reads the file to its end all the same.
    """
    if owner := _photo_of_map(name, named):
        return Skipped(name, f"belongs to {owner}")
    try:
        if path.suffix.lower() in videos.SUFFIXES:
            raise UnreadablePicture("a video; give it alone to use its frames")
        if not path.is_file():
            raise UnreadablePicture("not a file")
        if path.stat().st_size == 0:
            raise UnreadablePicture("empty")
        with open_picture(path) as image:
            size = upright_size(image)
            _check_size(*size)
            focal = exif.focal_in_pixels(image)
            image.draft(None, (256, 256))
            pixel_digest = _digest(np.asarray(decode(image)).data) + f" {size}"
        return Photo(name, path, size, focal, _digest(path.read_bytes())), pixel_digest
    except UnreadablePicture as error:
        return Skipped(name, str(error) if path.suffix.lower() in PHOTO_SUFFIXES | videos.SUFFIXES else _NO_PICTURE)
    except OSError as error:
        return Skipped(name, f"cannot be read ({error.strerror})")


def _find_frames(path: Path, every: int | None, frames: int | None, by_motion: bool) -> PhotoSet:
    photos: dict[str, Photo] = {}
    skipped = []
    chosen, damage = videos.read_frames(path, every=every, frames=frames, by_motion=by_motion)
    for frame in chosen:
        name, digest = f"frame_{frame.index:06d}.jpg", _digest(frame.jpeg)
        try:
            if digest in photos:
                raise UnreadablePicture(f"the same picture as {photos[digest].name}")
            _check_size(*frame.size)
            photos[digest] = Photo(name, None, frame.size, None, digest, frame.jpeg)
        except UnreadablePicture as error:
            skipped.append(Skipped(name, str(error)))
    if damage is not None:
        skipped.append(Skipped(path.name, damage))
    return PhotoSet(list(photos.values()), skipped, in_sequence=True)


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise UnreadablePicture(f"too small: {width} x {height} pixels; at least {MIN_SIDE} a side are needed")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnreadablePicture(f"too narrow: {width} x {height} pixels")


def _photo_of_map(name: str, named: dict[str, Path]) -> str | None:
    """The photo ``a.jpg`` that a picture called ``a_depth.png`` is a map of, if both are there."""
    path = PurePosixPath(name)
    match = _MAP_OF_PHOTO.fullmatch(path.stem)
    if match is None:
        return None
    owners = (str(path.with_name(match[1] + suffix)) for suffix in _suffix_spellings())
    return next((owner for owner in owners if owner in named), None)


def _suffix_spellings() -> list[str]:
    return [spelling for suffix in sorted(PHOTO_SUFFIXES) for spelling in (suffix, suffix.upper())]


def _digest(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _in_threads(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """Results in order; Pillow decodes and resizes outside the interpreter lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, items)
