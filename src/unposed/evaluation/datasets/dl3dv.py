"""DL3DV-10K (Ling et al., CVPR 2024): videos of places with cameras of COLMAP, lengths up to scale.

``[<batch>/]<hash>/transforms.json`` and ``images_8/frame_00001.png`` (480x270; also ``images_4``, ``images_2``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.datasets.files import LazyPhoto, OnDemand, json_file, require_file, require_folder
from unposed.evaluation.datasets.poses import CV_FROM_GL, pose_matrix, posed_camera

_HALF = 0.5


def read(root: Path, scenes: Sequence[str] | None = None, *, size: int = 8) -> OnDemand[FrameSequence]:
    """The scenes, each read when asked for, in the order of their frames; lens distortion is left out.

    Args:
        root: the folder of the batches or of the scenes.
        scenes: paths of scenes below the root, "1K/<hash>" or "<hash>".
        size: which of ``images_2``, ``images_4``, ``images_8`` to take.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = require_folder(Path(root), "scenes of DL3DV with transforms.json")
    if scenes is None:
        files = sorted([*root.glob("*/transforms.json"), *root.glob("*/*/transforms.json")])
    else:
        files = [require_file(root / name / "transforms.json", "a scene of DL3DV") for name in scenes]
    if not files:
        raise UserError(f"{root} holds no scene of DL3DV: [<batch>/]<hash>/transforms.json is expected.")
    return OnDemand(len(files), lambda k: _read_scene(files[k], files[k].parent.relative_to(root).as_posix(), size))


def _read_scene(file: Path, name: str, size: int) -> FrameSequence:
    content = json_file(file, "cameras of a scene of DL3DV")
    folder = require_folder(file.parent / f"images_{size}", "photos of a scene of DL3DV")
    try:
        entries = sorted((PurePosixPath(entry["file_path"]).name, entry) for entry in content["frames"])
        first = LazyPhoto(entries[0][0], folder / entries[0][0])
        frames = [_frame(folder, photo, {**content, **entry}, first.size) for photo, entry in entries]
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{file} is no transforms.json of DL3DV ({type(error).__name__}: {error}).") from error
    return FrameSequence(name, tuple(frames), metric=False)


def _frame(folder: Path, name: str, entry: Mapping[str, Any], size: tuple[int, int]) -> Frame:
    """Intrinsics are those of ``w`` x ``h``, counted from the corner; the axes of the pose are OpenGL's."""
    across, down = size[0] / entry["w"], size[1] / entry["h"]
    intrinsics = (
        entry["fl_x"] * across,
        entry["fl_y"] * down,
        entry["cx"] * across - _HALF,
        entry["cy"] * down - _HALF,
    )
    pose = pose_matrix(torch.tensor(entry["transform_matrix"], dtype=torch.float64).flatten().tolist()) @ CV_FROM_GL
    return Frame(LazyPhoto(name, folder / name), posed_camera(intrinsics, pose, size))
