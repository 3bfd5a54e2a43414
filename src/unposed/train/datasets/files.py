"""The files that pre-processed training sets are made of; whatever is missing or damaged is one sentence."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import ArrayLike
from PIL import Image

from unposed.errors import UserError
from unposed.io.exr import read_exr
from unposed.train.crop import PosedImage
from unposed.train.datasets.base import TrainingView


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which file it was, whatever goes wrong in it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: is the data set pre-processed into the layout of its page?") from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise UserError(f"{path} cannot be read as training data ({error}): make it again.") from error


def read_picture(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Colours of a picture file."""
    with _reading(path), Image.open(path) as image:
        return np.array(image.convert("RGB"))


def read_depth_png(path: Path, unit: float = 0.001) -> Float[np.ndarray, "height width"]:
    """Values of a 16-bit PNG times ``unit``; 0 is unknown."""
    return read_grey_png(path).astype(np.float32) * np.float32(unit)


def read_grey_png(path: Path) -> np.ndarray:
    """Values of a one-channel PNG (or, of a mask with colours, its first channel), as stored."""
    with _reading(path), Image.open(path) as image:
        values = np.array(image)
    return values if values.ndim == 2 else values[..., 0]


def read_depth_exr(path: Path) -> Float[np.ndarray, "height width"]:
    """Depth of an OpenEXR file; 0 is unknown."""
    if not path.is_file():
        raise UserError(f"{path} is missing: is the data set pre-processed into the layout of its page?")
    return read_exr(path).numpy()


def read_arrays(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """The named arrays of an NPZ file; nothing in it is executed."""
    with _reading(path), np.load(path, allow_pickle=False) as stored:
        return tuple(stored[name] for name in names)


def read_array(path: Path) -> np.ndarray:
    """The array of an NPY file; nothing in it is executed."""
    with _reading(path):
        return np.load(path, allow_pickle=False)


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    with _reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def read_fields(path: Path, *names: str) -> tuple[Float[np.ndarray, "..."], ...]:
    """The named numbers of a JSON object, as arrays."""
    with _reading(path):
        facts = json.loads(path.read_text(encoding="utf-8"))
        return tuple(np.array(facts[name], np.float32) for name in names)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that hold something."""
    with _reading(path):
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def pose(rotation: ArrayLike, translation: ArrayLike) -> Float[np.ndarray, "4 4"]:
    """``world_from_camera`` of the camera's axes and centre in the world."""
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = np.asarray(rotation, np.float32).reshape(3, 3)
    matrix[:3, 3] = np.asarray(translation, np.float32).reshape(3)
    return matrix


def text(value: Any) -> str:
    """A name that NumPy may have stored as bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def stem(name: Any) -> str:
    """A picture's name without the suffix of a picture."""
    name = text(name)
    plain = name.rsplit(".", 1)
    return plain[0] if len(plain) == 2 and plain[1].lower() in ("jpg", "jpeg", "png") else name


def view(
    picture: Path,
    depth: Float[np.ndarray, "height width"],
    intrinsics: ArrayLike,
    world_from_camera: ArrayLike,
    label: str,
) -> TrainingView:
    """A view from its picture file and what was read of it; unknown depth becomes 0.

    Raises:
        UserError: no such picture, a depth map of another size, or a camera that is not one.
    """
    pixels = read_picture(picture)
    if depth.shape != pixels.shape[:2]:
        raise UserError(f"{picture} has another size than its depth map: pre-process that scene again.")
    camera, placed = np.array(intrinsics, np.float32), np.array(world_from_camera, np.float32)
    if (
        camera.shape != (3, 3)
        or placed.shape != (4, 4)
        or not (np.isfinite(camera).all() and np.isfinite(placed).all())
    ):
        raise UserError(f"{picture} has no camera of finite 3 x 3 intrinsics and a 4 x 4 pose: pre-process it again.")
    known = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
    return TrainingView(PosedImage(pixels, known, camera), placed, label, picture.name)


def columns(rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Columns of a list of pairs, stored with named fields or as a plain matrix."""
    return tuple(rows[name] for name in rows.dtype.names) if rows.dtype.names else tuple(rows.T)


def index_rows(path: Path, rows: np.ndarray, *limits: int) -> Int[np.ndarray, "rows columns"]:
    """The first columns of a list of pairs as indices, each below its limit.

    Raises:
        UserError: ``path``, where the list is from, has fewer columns or larger numbers.
    """
    table = columns(rows)[: len(limits)]
    wrong = (len(c) > 0 and (c.min() < 0 or c.max() >= limit) for c, limit in zip(table, limits, strict=False))
    if len(table) < len(limits) or any(wrong):
        raise UserError(f"{path} lists pairs of photos or scenes that it does not list: get it or make it again.")
    return np.stack(table, 1).astype(np.int64)
