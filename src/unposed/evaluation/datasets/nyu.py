"""NYU Depth v2 (Silberman et al., ECCV 2012): single indoor photos, 640x480, metres; 654 of them are for testing."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.datasets.files import LazyPhoto, array_file, by_name, known_depth, listed, require_file
from unposed.evaluation.datasets.poses import calibration

_INTRINSICS = (518.857901, 519.469611, 325.582245, 253.736166)
"""Of the colour camera, as the toolbox of the data set gives them."""


def read(root: Path, scenes: Sequence[str] | None = None) -> list[FrameSequence]:
    """The photos, a sequence each, with intrinsics; the layout is told by what the folder holds.

    Converted: ``nyu_images/<name>.png`` with ``nyu_depths/<name>.npy``. Labelled: ``nyu_depth_v2_labeled.mat`` (v7.3)
    with ``splits.mat``, of which the test photos are taken. HDF5: one ``<name>.h5`` a photo (anywhere below the folder)
    with ``rgb`` (3, 480, 640) and ``depth`` (480, 640). ``scenes`` are photo names without suffix.

    Raises:
        UserError: none of these is there, or something is missing in it.
    """
    root = Path(root)
    if (root / "nyu_images").is_dir():
        frames = _converted(root)
    elif (root / "nyu_depth_v2_labeled.mat").is_file():
        frames = _labelled(root)
    else:
        frames = _single_files(root)
    if missing := set(scenes or ()) - set(frames):
        raise UserError(f"{root} has no photo {min(missing)}; check the name.")
    return [FrameSequence(name, (frame,)) for name, frame in frames.items() if scenes is None or name in scenes]


def _converted(root: Path) -> dict[str, Frame]:
    photos = listed(root / "nyu_images", "*.png", "photos of NYUv2")
    return {
        photo.stem: _frame(LazyPhoto(photo.name, photo), partial(_read_npy, root / "nyu_depths" / f"{photo.stem}.npy"))
        for photo in photos
    }


def _single_files(root: Path) -> dict[str, Frame]:
    paths = sorted(root.rglob("*.h5"), key=by_name)
    if not paths:
        raise UserError(
            f"{root} holds no NYUv2: nyu_images with nyu_depths, nyu_depth_v2_labeled.mat with splits.mat, or *.h5."
        )
    frames = {}
    for path in paths:
        name = path.relative_to(root).with_suffix("").as_posix()
        photo = LazyPhoto(f"{name}.png", None, partial(_encoded, path, "rgb", None))
        frames[name] = _frame(photo, partial(_read_depth, path, "depth", None))
    return frames


def _labelled(root: Path) -> dict[str, Frame]:
    """MATLAB counts from 1 and stores columns first: arrays arrive with their axes reversed."""
    from scipy.io import loadmat

    path, splits = root / "nyu_depth_v2_labeled.mat", require_file(root / "splits.mat", "testNdxs of NYUv2")
    try:
        numbers = loadmat(splits)["testNdxs"].ravel().tolist()
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(f"{splits} holds no testNdxs; download it again.") from error
    frames = {}
    for number in numbers:
        name = f"{number - 1:05d}"
        photo = LazyPhoto(f"{name}.png", None, partial(_encoded, path, "images", number - 1))
        frames[name] = _frame(photo, partial(_read_depth, path, "depths", number - 1))
    return frames


def _frame(photo: LazyPhoto, depth: Any) -> Frame:
    return Frame(photo, intrinsics=calibration(_INTRINSICS), depth=depth)


def _encoded(path: Path, key: str, index: int | None) -> bytes:
    pixels = _read_array(path, key, index)
    if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.dtype != np.uint8:
        raise UserError(f"{key} in {path} is no RGB photo (3, 480, 640); download it again.")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _read_depth(path: Path, key: str, index: int | None) -> Float[Tensor, "height width"]:
    return known_depth(_read_array(path, key, index))


def _read_npy(path: Path) -> Float[Tensor, "height width"]:
    return known_depth(array_file(path, "depth in metres")[""])


def _read_array(path: Path, key: str, index: int | None) -> Any:
    """An array of an HDF5 file; with ``index`` one of MATLAB's, whose last two axes are exchanged back."""
    try:
        with h5py.File(require_file(path, f"an HDF5 file with {key}")) as file:
            return file[key][()] if index is None else np.swapaxes(file[key][index], -1, -2)
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise UserError(f"{path} cannot be used ({error}): {key} is expected in it.") from error
