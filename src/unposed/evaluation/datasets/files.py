"""Files of a data set: that they are there, what they list, and photos and maps that are read when asked for."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.io import exif
from unposed.io.array_pickles import load_arrays
from unposed.io.decode import UnreadablePicture, open_picture, upright_size
from unposed.io.photos import Photo
from unposed.io.sources import natural_key

_Item = TypeVar("_Item")


class LazyPhoto(Photo):
    """A photo of a data set, whose file is not touched before its size or pixels are asked for."""

    def __init__(self, name: str, path: Path | None, encoded: Callable[[], bytes] | None = None) -> None:
        """``encoded`` reads the picture file's bytes where the photo is no file."""
        for key, value in (("name", name), ("path", path), ("_encoded", encoded)):
            object.__setattr__(self, key, value)

    def __repr__(self) -> str:
        return f"LazyPhoto({self.name!r})"

    @cached_property
    def data(self) -> bytes | None:
        """The encoded picture where it is no file."""
        encoded: Callable[[], bytes] | None = self.__dict__["_encoded"]
        return encoded() if encoded is not None else None

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) after EXIF rotation."""
        return self._header[0]

    @cached_property
    def exif_focal(self) -> float | None:
        """Focal length in pixels of the full photo as EXIF tells it."""
        return self._header[1]

    @cached_property
    def digest(self) -> str:
        """Hash of the encoded bytes."""
        encoded = self.data if self.path is None else self.path.read_bytes()
        return hashlib.blake2b(encoded or b"", digest_size=16).hexdigest()

    @cached_property
    def _header(self) -> tuple[tuple[int, int], float | None]:
        source = self.path if self.path is not None else self.data
        assert source is not None
        if isinstance(source, Path):
            require_file(source, "a photo of the data set")
        try:
            with open_picture(source) as image:
                return upright_size(image), exif.focal_in_pixels(image)
        except UnreadablePicture as error:
            raise UserError(f"The photo {self.path or self.name} is {error}; download it again.") from error


class OnDemand(Sequence[_Item]):
    """Items that are made when asked for, for data sets that do not fit in memory."""

    def __init__(self, count: int, make: Callable[[int], _Item]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._make(index % self._count)

    def __iter__(self) -> Iterator[_Item]:
        return (self._make(k) for k in range(self._count))


def require_file(path: Path, what: str) -> Path:
    """The path, if it is a file; ``what`` says what it should hold.

    Raises:
        UserError: it is not there.
    """
    if not path.is_file():
        raise UserError(f"There is no {path}: {what} is expected there; check the folder given and the download.")
    return path


def require_folder(path: Path, what: str) -> Path:
    """The path, if it is a folder; ``what`` says what it should hold.

    Raises:
        UserError: it is not there.
    """
    if not path.is_dir():
        raise UserError(f"There is no folder {path}: {what} is expected there; check the folder given.")
    return path


def subfolders(root: Path, chosen: Sequence[str] | None, what: str, holding: str = "") -> list[Path]:
    """The chosen folders of ``root``, or by default those that hold a file or folder called ``holding``, sorted.

    Raises:
        UserError: one is missing, or none is there.
    """
    require_folder(root, what)
    if chosen is not None:
        return [require_folder(root / name, what) for name in chosen]
    found = sorted((path for path in root.iterdir() if (path / holding).exists() and path.is_dir()), key=by_name)
    if not found:
        raise UserError(f"No folder in {root} holds {holding or 'anything'}: {what} is expected there.")
    return found


def listed(folder: Path, pattern: str, what: str) -> list[Path]:
    """Files that match, in natural order of their names (img2 before img10).

    Raises:
        UserError: no such folder, or nothing matches.
    """
    found = sorted(require_folder(folder, what).glob(pattern), key=by_name)
    if not found:
        raise UserError(f"There is no {pattern} in {folder}: {what} is expected there.")
    return found


def by_name(path: Path) -> Any:
    """Sorting key of natural order."""
    return natural_key(path.name)


def first_existing(*paths: Path) -> Path:
    """The first path that exists, or the first one if none does."""
    return next((path for path in paths if path.exists()), paths[0])


def text_lines(path: Path, what: str) -> list[str]:
    """Lines without surrounding space, without empty ones and those that begin with #.

    Raises:
        UserError: no such file, or no text.
    """
    try:
        text = require_file(path, what).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): {what} is expected there.") from error
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def number_table(path: Path, what: str, columns: int | None = None) -> list[list[float]]:
    """The numbers of a text file, line by line; with ``columns``, every line must have so many.

    Raises:
        UserError: no such file, something else than numbers, or a line of another length.
    """
    rows = []
    for line in text_lines(path, what):
        try:
            rows.append([float(word) for word in line.replace(",", " ").split()])
        except ValueError as error:
            raise UserError(f"{path} holds {line[:40]!r}: {what} is expected there.") from error
        if columns is not None and len(rows[-1]) != columns:
            raise UserError(f"{path} has a line of {len(rows[-1])} numbers in place of {columns}: {what} is expected.")
    return rows


def json_file(path: Path, what: str, kind: type = dict) -> Any:
    """What a JSON file holds: an object, or another ``kind``.

    Raises:
        UserError: no such file, no JSON, or JSON of another kind.
    """
    try:
        content = json.loads(require_file(path, what).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable JSON ({error}): {what} is expected there.") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} holds another kind of JSON: {what} is expected there.")
    return content


def png16(path: Path) -> "np.ndarray[Any, np.dtype[np.uint16]]":
    """The 16-bit words of a one-channel PNG.

    Raises:
        UserError: no such file, or not 16 bits a pixel.
    """
    words = cv2.imread(str(require_file(path, "a 16-bit PNG")), cv2.IMREAD_UNCHANGED)
    if words is None or words.dtype != np.uint16 or words.ndim != 2:
        raise UserError(f"{path} is no 16-bit grey PNG; take the data set's own file, not a converted one.")
    return words


def png_depth(path: Path, per_unit: float, *, farthest: float = float("inf")) -> Float[Tensor, "height width"]:
    """Depth = 16-bit word / ``per_unit``; 0 where the word is 0 or the depth is above ``farthest``.

    Raises:
        UserError: no such file, or not 16 bits a pixel.
    """
    words = torch.from_numpy(png16(path).astype(np.float32))
    depth = words / per_unit
    return torch.where(depth > farthest, 0.0, depth)


def known_depth(values: "np.ndarray[Any, Any]") -> Float[Tensor, "height width"]:
    """Depth as float32 with 0 where it is not finite or not positive."""
    depth = torch.from_numpy(np.array(values, dtype=np.float32))
    return torch.where(depth.isfinite() & (depth > 0), depth, 0.0)


def png_mask(path: Path) -> Float[Tensor, "height width"]:
    """The first channel of an 8-bit mask as 0 to 1.

    Raises:
        UserError: no such file, or no picture.
    """
    values = cv2.imread(str(require_file(path, "a mask")), cv2.IMREAD_GRAYSCALE)
    if values is None:
        raise UserError(f"{path} is no picture; a mask is expected there.")
    return torch.from_numpy(values.astype(np.float32) / 255)


def array_file(path: Path, what: str, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The arrays of an ``.npz`` (those called ``names``, or all), or of an ``.npy`` under the name "".

    Pickled arrays are read as long as they hold nothing but arrays in plain Python values.

    Raises:
        UserError: no such file, a damaged one, or an array is missing.
    """
    require_file(path, what)
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"": content}
        with content:
            return {name: _array(content, name) for name in names or content.files}
    except UserError:
        raise
    except Exception as error:  # a damaged archive can raise nearly anything
        raise UserError(f"{path} cannot be used ({error}): {what} is expected there.") from error


def _array(content: Any, name: str) -> Any:
    """One array of an open ``.npz``; the value itself where it is a pickled one that holds a single value."""
    with content.zip.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        if not dtype.hasobject:
            return content[name]
        values = load_arrays(file)
    return values.item() if shape == () else values
