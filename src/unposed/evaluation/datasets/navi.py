"""NAVI (Jampani et al., NeurIPS 2023): photos of objects with poses, lengths in millimetres of the object.

``<object>/<scene>/annotations.json``, a list of ``{filename, camera: {q (w first), t, focal_length}}`` (world to
camera), with the photos in ``images/`` and masks of the object in ``masks/``. Its depth files are not read.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.datasets.files import LazyPhoto, OnDemand, json_file, png_mask, require_file, require_folder
from unposed.evaluation.datasets.poses import pose_from_quaternion, posed_camera
from unposed.geometry.transforms import invert_rigid


def read(root: Path, scenes: Sequence[str] | None = None) -> OnDemand[FrameSequence]:
    """The scenes, named "object/scene", each read when asked for; the principal point is the middle of the photo.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = require_folder(Path(root), "objects of NAVI")
    if scenes is None:
        files = sorted(root.glob("*/*/annotations.json"))
    else:
        files = [require_file(root / name / "annotations.json", "a scene of NAVI") for name in scenes]
    if not files:
        raise UserError(f"{root} holds no scene of NAVI: <object>/<scene>/annotations.json is expected.")
    return OnDemand(len(files), lambda k: _read_scene(files[k]))


def _read_scene(file: Path) -> FrameSequence:
    folder = file.parent
    try:
        frames = [_frame(folder, entry) for entry in json_file(file, "a list of cameras of NAVI", list)]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{file} is no annotation of NAVI ({type(error).__name__}: {error}).") from error
    return FrameSequence(f"{folder.parent.name}/{folder.name}", tuple(frames), metric=False)


def _frame(folder: Path, entry: Mapping[str, Any]) -> Frame:
    photo = LazyPhoto(entry["filename"], folder / "images" / entry["filename"])
    camera, (width, height) = entry["camera"], photo.size
    focal = float(camera["focal_length"])
    pose = invert_rigid(pose_from_quaternion(camera["q"], camera["t"]))
    mask = (folder / "masks" / entry["filename"]).with_suffix(".png")
    return Frame(
        photo,
        posed_camera((focal, focal, (width - 1) / 2, (height - 1) / 2), pose, (width, height)),
        mask=partial(png_mask, mask) if mask.is_file() else None,
    )
