"""ScanNet (Dai et al., CVPR 2017), metres: the 1500 test pairs of SuperGlue and LoFTR, and the videos.

A scene folder holds ``color/15.jpg``, ``pose/15.txt`` (4x4, camera to world; inf where tracking was lost),
``intrinsic/*.txt`` and ``depth/15.png`` (16-bit millimetres at 640x480).
"""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence, PosedPair
from unposed.evaluation.datasets.files import (
    LazyPhoto,
    array_file,
    listed,
    number_table,
    png_depth,
    require_folder,
    subfolders,
)
from unposed.evaluation.datasets.poses import pose_matrix, posed_camera, read_matrix, read_pose

_DEPTH_SIZE = (640, 480)
_WHAT = "a scene of ScanNet with color, pose and intrinsic"


def read(root: Path, scenes: Sequence[str] | None = None) -> list[PosedPair]:
    """The pairs of ``test.npz``; photos are 640x480, so their intrinsics are those of the depth camera.

    ``test.npz``: ``name`` (scene, sub-scene, frame, frame) and ``rel_pose`` (3x4, first camera to second);
    ``scannet_test_1500/scene0707_00/...``. ``scenes`` are names such as ``scene0707_00``.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = Path(root)
    index = array_file(root / "test.npz", "the index of ScanNet1500 (name, rel_pose)", ("name", "rel_pose"))
    if index["name"].shape[1:] != (4,) or index["rel_pose"].shape != (len(index["name"]), 12):
        raise UserError(f"{root / 'test.npz'} holds no pairs of ScanNet1500: name is (n, 4), rel_pose (n, 12).")
    folder = require_folder(root / "scannet_test_1500", "the scenes of ScanNet1500")
    intrinsics = cache(lambda scene: read_matrix(scene / "intrinsic" / "intrinsic_depth.txt", "a 4x4 calibration"))
    frame = cache(lambda scene, number: _frame(scene, number, intrinsics(scene), _DEPTH_SIZE))
    pairs = []
    for (scene, sub, first, second), relative in zip(index["name"].tolist(), index["rel_pose"], strict=True):
        name = f"scene{scene:04d}_{sub:02d}"
        if scenes is None or name in scenes:
            a, b = frame(folder / name, first), frame(folder / name, second)
            pairs.append(PosedPair(f"{name}/{first}-{second}", a, b, pose_matrix(relative.tolist()).float()))
    return pairs


def read_video(
    root: Path, scenes: Sequence[str] | None = None, *, every: int = 3, count: int | None = 90
) -> list[FrameSequence]:
    """Every third frame of each scene and the first 90 of those, as MonST3R takes them, by default.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    sequences = []
    for folder in subfolders(Path(root), scenes, _WHAT, "color"):
        photos = listed(folder / "color", "[0-9]*.jpg", _WHAT)
        matrix = read_matrix(folder / "intrinsic" / "intrinsic_color.txt", "a 4x4 calibration")
        size = LazyPhoto(photos[0].name, photos[0]).size
        chosen = photos[::every][:count]
        frames = tuple(_frame(folder, int(photo.stem), matrix, size) for photo in chosen)
        sequences.append(FrameSequence(folder.name, frames))
    return sequences


def read_gathered(root: Path, scenes: Sequence[str] | None = None) -> list[FrameSequence]:
    """The frames that MonST3R's preparation gathers: ``color_90``, ``depth_90`` and ``pose_90.txt`` of each scene.

    ``pose_90.txt`` has 16 numbers a line, camera to world; there are no intrinsics (nan).

    Raises:
        UserError: something is missing; the sentence says what.
    """
    sequences = []
    for folder in subfolders(Path(root), scenes, "color_90, depth_90 and pose_90.txt of a scene", "pose_90.txt"):
        photos = listed(folder / "color_90", "frame_*.jpg", "the gathered frames")
        rows = number_table(folder / "pose_90.txt", "a pose a line", columns=16)
        if len(rows) != len(photos):
            raise UserError(f"{folder / 'pose_90.txt'} has {len(rows)} poses for {len(photos)} frames; gather again.")
        size = LazyPhoto(photos[0].name, photos[0]).size
        frames = []
        for photo, row in zip(photos, rows, strict=True):
            depth = folder / "depth_90" / f"{photo.stem}.png"
            frames.append(
                Frame(
                    LazyPhoto(f"{folder.name}/{photo.name}", photo),
                    posed_camera(torch.full((3, 3), torch.nan), pose_matrix(row), size),
                    partial(png_depth, depth, 1000) if depth.exists() else None,
                )
            )
        sequences.append(FrameSequence(folder.name, tuple(frames)))
    return sequences


def _frame(scene: Path, number: int, intrinsics: Float[Tensor, "4 4"], size: tuple[int, int]) -> Frame:
    photo, depth = scene / "color" / f"{number}.jpg", scene / "depth" / f"{number}.png"
    return Frame(
        LazyPhoto(f"{scene.name}/{photo.name}", photo),
        posed_camera(intrinsics, read_pose(scene / "pose" / f"{number}.txt", "a pose, camera to world"), size),
        partial(png_depth, depth, 1000) if depth.exists() else None,
    )
