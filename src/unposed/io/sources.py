"""Which files a user means by a folder, a glob pattern, a file, or a list of them, and what each is called."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from unposed.errors import UserError

PHOTO_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2"),
        *(".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".bmp", ".ppm", ".pgm"),
    }
)
"""File endings (lower case) that promise a photo; what a file is, its content says."""
OWN_MARKERS = ("scene.json", "run.json")
"""A folder that holds one of these was written by this package: its pictures are no photos."""

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def named_files(source: Source) -> dict[str, Path]:
    """Name and absolute path of every file a source means, in natural order of names (img2 before img10).

    A folder means its own files; one without any photo means the photos of all folders below it. Hidden files, hidden
    folders and folders this package wrote are left out. Names are relative to the folder, or to the closest common
    folder of everything that was given, with forward slashes.

    Raises:
        UserError: something given does not exist or cannot be read, or nothing is there.
    """
    places = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    paths = [Path(os.path.abspath(os.path.expanduser(place))) for place in places]
    try:
        files = list(dict.fromkeys(file for path in paths for file in _files_at(path)))
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); give another place.") from error
    if not files:
        raise UserError(f"There is no photo in {describe(source)}; give a folder of photos, photos, or a video.")
    alone = len(paths) == 1 and paths[0].is_dir()
    base = paths[0] if alone else Path(os.path.commonpath([file.parent for file in files]))
    named = {_name(file, base): file for file in files}
    return dict(sorted(named.items(), key=lambda item: natural_key(item[0])))


def describe(source: Source) -> str:
    """A source in a few words, for messages."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return f"the {len(source)} given places" if len(source) != 1 else os.fspath(source[0])


def _files_at(path: Path) -> list[Path]:
    if path.is_dir():
        return _files_in(path)
    if path.exists():
        return [path]
    matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
    if not matches:
        raise UserError(f"There is no {path}; give a folder of photos, photos, or a video.")
    return [match for match in matches if match.is_file()]


def _files_in(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    if any(file.suffix.lower() in PHOTO_SUFFIXES for file in files):
        return files
    return _photos_below(folder) or files


def _photos_below(folder: Path) -> list[Path]:
    found = []
    for place, folders, files in os.walk(folder):
        if any(marker in files for marker in OWN_MARKERS):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return [file for file in found if file.suffix.lower() in PHOTO_SUFFIXES and file.is_file()]


def _name(file: Path, base: Path) -> str:
    name = PurePath(os.path.relpath(file, base)).as_posix()
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorting key that counts: img2 before img10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part[:300]), "") if part.isdecimal() else (1, 0, part) for part in parts], name
