"""DTU (Jensen et al., CVPR 2014): scans of objects, lengths in millimetres.

Photos as MVSNet prepares them: ``scan1/images/00000000.jpg``, ``scan1/cams/00000000_cam.txt``, ``scan1/pair.txt`` and,
where present, ``scan1/depths/00000000.npy`` and ``scan1/binary_masks/00000000.png``. The official evaluation:
``SampleSet/MVS Data/ObsMask/{ObsMask1_10.mat,Plane1.mat}`` and ``Points/stl/stl001_total.ply``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from scipy.io import loadmat
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.datasets.files import (
    LazyPhoto,
    array_file,
    first_existing,
    known_depth,
    listed,
    png_mask,
    require_file,
    subfolders,
    text_lines,
)
from unposed.evaluation.datasets.points import read_points
from unposed.evaluation.datasets.poses import pose_matrix, posed_camera
from unposed.geometry.transforms import invert_rigid

TEST_SCANS = (1, 4, 9, 10, 11, 12, 13, 15, 23, 24, 29, 32, 33, 34, 48, 49, 62, 75, 77, 110, 114, 118)
SPACING = 0.2
"""Millimetres: predicted clouds are thinned to this distance before they are scored."""
FARTHEST = 20.0
"""Millimetres: longer distances do not count."""


def read(root: Path, scenes: Sequence[str] | None = None) -> list[FrameSequence]:
    """The scans, 49 photos each, in the order of their numbers; ``mask`` covers the object.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    what = "a scan of DTU as MVSNet prepares it, with images and cams"
    sequences = []
    for folder in subfolders(Path(root), scenes, what, "cams"):
        photos = listed(folder / "images", "*.[jp][pn]g", what)
        size = LazyPhoto(photos[0].name, photos[0]).size
        frames = tuple(_frame(folder, photo, size) for photo in photos)
        sequences.append(FrameSequence(folder.name, frames, metric=False))
    return sequences


def read_neighbours(path: Path) -> dict[int, list[int]]:
    """Source views of each view, best first, from ``pair.txt``.

    Raises:
        UserError: no such file, or another format.
    """
    lines = text_lines(path, "the number of views, then a line with its id and one with k, id, score, ... for each")
    try:
        return {
            int(lines[k]): [int(word) for word in lines[k + 1].split()[1::2]] for k in range(1, 2 * int(lines[0]), 2)
        }
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} is no pair.txt of MVSNet ({error}).") from error


@dataclass(frozen=True, eq=False)
class Reference:
    """What the official evaluation scores a scan against; lengths in millimetres, in the world of the cameras."""

    points: Float[Tensor, "n 3"]
    """The structured-light scan."""
    observed_volume: Bool[Tensor, "x y z"]
    corner: Float[Tensor, "3"]
    """World position of the voxel (0, 0, 0)."""
    voxel: float
    plane: Float[Tensor, "4"]
    """Of the table; points of the scan above it count for completeness."""

    def observed(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Which predicted points lie in the observed volume: only these count for accuracy."""
        index = ((points - self.corner) / self.voxel).round().long()
        limit = torch.tensor(self.observed_volume.shape)
        inside = ((index >= 0) & (index < limit)).all(-1)
        x, y, z = torch.where(inside[:, None], index, 0).unbind(-1)
        return inside & self.observed_volume[x, y, z]

    def above_plane(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Which points of the scan lie above the table: only these count for completeness."""
        return points @ self.plane[:3] + self.plane[3] > 0


def read_reference(root: Path, scan: int) -> Reference:
    """The official reference of a scan; ``root`` holds ``SampleSet`` and ``Points``.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = Path(root)
    masks = first_existing(root / "SampleSet" / "MVS Data" / "ObsMask", root / "MVS Data" / "ObsMask", root / "ObsMask")
    stl = first_existing(root / "Points" / "stl", root / "SampleSet" / "MVS Data" / "Points" / "stl")
    mask = _matlab(masks / f"ObsMask{scan}_10.mat", ("ObsMask", "BB", "Res"))
    plane = _matlab(masks / f"Plane{scan}.mat", ("P",))
    return Reference(
        points=read_points(stl / f"stl{scan:03d}_total.ply"),
        observed_volume=torch.from_numpy(mask["ObsMask"] > 0),
        corner=torch.tensor(mask["BB"][0].tolist(), dtype=torch.float32),
        voxel=float(mask["Res"].squeeze()),
        plane=torch.tensor(plane["P"].ravel().tolist(), dtype=torch.float32),
    )


def _matlab(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    try:
        content = loadmat(require_file(path, "a file of the official DTU evaluation"))
        return {name: content[name] for name in names}
    except (KeyError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be used: {', '.join(names)} are expected in it.") from error


def _frame(folder: Path, photo: Path, size: tuple[int, int]) -> Frame:
    depth, mask = folder / "depths" / f"{photo.stem}.npy", folder / "binary_masks" / f"{photo.stem}.png"
    intrinsics, world_from_camera = read_camera(folder / "cams" / f"{photo.stem}_cam.txt")
    return Frame(
        LazyPhoto(f"{folder.name}/{photo.name}", photo),
        posed_camera(intrinsics, world_from_camera, size),
        partial(_read_depth, depth) if depth.is_file() else None,
        partial(png_mask, mask) if mask.is_file() else None,
    )


def read_camera(path: Path) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "4 4"]]:
    """K and ``world_from_camera`` (float64) of a camera file of MVSNet.

    "extrinsic", 4x4 world to camera, "intrinsic", 3x3, and two to four numbers about the depth range (29 to 31 words in
    all), which are not used.

    Raises:
        UserError: no such file, or another format.
    """
    words = " ".join(text_lines(path, 'a camera of MVSNet ("extrinsic", 16 numbers, "intrinsic", 9 numbers)')).split()
    try:
        if words[0] != "extrinsic" or words[17] != "intrinsic":
            raise ValueError("its words are not where they belong")
        extrinsic, intrinsic = ([float(word) for word in part] for part in (words[1:17], words[18:27]))
        intrinsics = torch.tensor(intrinsic, dtype=torch.float64).reshape(3, 3)
    except (ValueError, IndexError, RuntimeError) as error:
        raise UserError(f"{path} is no camera of MVSNet ({error}).") from error
    return intrinsics, invert_rigid(pose_matrix(extrinsic))


def _read_depth(path: Path) -> Float[Tensor, "height width"]:
    return known_depth(array_file(path, "depth in millimetres")[""])
