"""What stereo and flow share: two photos pixel by pixel, and results whose format is told by the suffix."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from unposed.errors import UserError
from unposed.io.photos import Photo
from unposed.io.preview import write_png

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Kinds of pictures that are written for people."""


def load_alike(
    a: Photo, b: Photo, what: str
) -> tuple[UInt8[Tensor, "height width 3"], UInt8[Tensor, "height width 3"]]:
    """Pixels of two photos that must have one size.

    Raises:
        UserError: they have not, or can no longer be read.
    """
    if a.size != b.size:
        sizes = " and ".join(f"{photo.size[0]} x {photo.size[1]}" for photo in (a, b))
        raise UserError(f"{what} has photos of one size, and these have {sizes} pixels: give photos of one size.")
    first, second = (torch.from_numpy(np.array(photo.load())) for photo in (a, b))
    return first, second


def check_suffix(path: str | Path, known: tuple[str, ...]) -> str:
    """The suffix of an output file, in lower case.

    Raises:
        UserError: it is none of the known ones.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        kinds = f"{', '.join(known[:-1])} or {known[-1]}"
        raise UserError(f"results are written as {kinds}, not {Path(path).name}: change the suffix.")
    return suffix


class Result(Protocol):
    """What can be written as numbers and as a picture."""

    def colours(self) -> UInt8[Tensor, "height width 3"]:
        """The picture."""
        ...

    def save(self, path: str | Path) -> None:
        """Write the numbers; the suffix tells the format."""
        ...


def check_outputs(out: Path, known: tuple[str, ...], picture: Path | None, inputs: Sequence[str]) -> None:
    """Refuse, before any work, what cannot be written afterwards.

    Raises:
        UserError: an unknown suffix, or an output that is one of the inputs or the other output.
    """
    check_suffix(out, known)
    if picture is not None:
        check_suffix(picture, PICTURE_SUFFIXES)
    places = [path.resolve() for path in (out, picture) if path is not None]
    if len(set(places)) < len(places) or any(Path(name).resolve() in places for name in inputs):
        raise UserError("an output has the name of a photo or of the other output: choose another name.")


def save(result: Result, out: Path, picture: Path | None) -> list[Path]:
    """Write a result, and its picture where one is asked for; the files that were written.

    Raises:
        UserError: the format cannot hold the result, or a place cannot be written.
    """
    result.save(out)
    if picture is None:
        return [out]
    write_png(picture, result.colours())
    return [out, picture]
