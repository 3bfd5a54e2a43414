"""KITTI depth (Uhrig et al., 3DV 2017): sparse lidar depth of driving videos, metres.

Depth is 16-bit PNG, value / 256, 0 where there is no measurement.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.datasets.files import (
    LazyPhoto,
    first_existing,
    listed,
    number_table,
    png_depth,
    require_folder,
    subfolders,
)
from unposed.evaluation.datasets.poses import calibration

_PER_METRE = 256
_SELECTION = Path("depth_selection/val_selection_cropped")


def read(root: Path, scenes: Sequence[str] | None = None, *, count: int | None = 110) -> list[FrameSequence]:
    """The first 110 frames with true depth of each validation drive (left colour camera), without cameras.

    ``val/<drive>_sync/proj_depth/groundtruth/image_02/0000000005.png`` and the raw data beside it,
    ``<date>/<drive>_sync/image_02/data/0000000005.png``.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = Path(root)
    what = "a validation drive of KITTI depth with proj_depth/groundtruth/image_02"
    sequences = []
    for drive in subfolders(
        first_existing(root / "val", root / "data_depth_annotated/val"), scenes, what, "proj_depth"
    ):
        raw = Path(drive.name[:10], drive.name, "image_02", "data")
        photos = require_folder(first_existing(root / raw, root / "raw" / raw), "the raw photos of the drive")
        depths = listed(drive / "proj_depth" / "groundtruth" / "image_02", "*.png", what)[:count]
        sequences.append(FrameSequence(drive.name, tuple(_frame(photos / path.name, path) for path in depths)))
    return sequences


def read_gathered(root: Path, scenes: Sequence[str] | None = None) -> list[FrameSequence]:
    """The frames that MonST3R's preparation gathers: ``image_gathered`` and ``groundtruth_depth_gathered``.

    Both lie in ``depth_selection/val_selection_cropped`` and hold ``<drive>_02/<frame>.png``.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    folder = first_existing(Path(root) / _SELECTION, Path(root))
    sequences = []
    for drive in subfolders(folder / "groundtruth_depth_gathered", scenes, "the gathered depth of a drive"):
        photos = require_folder(folder / "image_gathered" / drive.name, "the gathered photos of the drive")
        depths = listed(drive, "*.png", "depth of KITTI")
        sequences.append(FrameSequence(drive.name, tuple(_frame(photos / path.name, path) for path in depths)))
    return sequences


def read_selection(root: Path, scenes: Sequence[str] | None = None) -> list[FrameSequence]:
    """The official 1000 single photos (1216x352), a sequence each, with intrinsics.

    ``depth_selection/val_selection_cropped/{image,groundtruth_depth,intrinsics}``. ``scenes`` are photo names without
    ".png".

    Raises:
        UserError: something is missing; the sentence says what.
    """
    folder = first_existing(Path(root) / _SELECTION, Path(root))
    photos = listed(folder / "image", "*.png", "the 1000 photos of KITTI's depth selection")
    if missing := set(scenes or ()) - {photo.stem for photo in photos}:
        raise UserError(f"{folder / 'image'} has no {min(missing)}.png; check the name.")
    sequences = []
    for photo in photos:
        if scenes is None or photo.stem in scenes:
            depth = folder / "groundtruth_depth" / photo.name.replace("_sync_image_", "_sync_groundtruth_depth_")
            row = number_table(folder / "intrinsics" / f"{photo.stem}.txt", "a 3x3 calibration in a line", 9)[0]
            frame = _frame(photo, depth)
            known = replace(frame, intrinsics=calibration((row[0], row[4], row[2], row[5])))
            sequences.append(FrameSequence(photo.stem, (known,)))
    return sequences


def _frame(photo: Path, depth: Path) -> Frame:
    return Frame(LazyPhoto(photo.name, photo), depth=partial(png_depth, depth, _PER_METRE))
