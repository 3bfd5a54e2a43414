"""Common Objects in 3D, version 2 (Reizenstein et al., ICCV 2021): videos around objects, lengths up to scale.

Raw: ``<category>/{frame,sequence}_annotations.jgz``, ``<category>/set_lists/set_lists_fewview_dev.json`` and, for each
sequence, ``images``, ``depths``, ``depth_masks``, ``masks``. As DUSt3R prepares it: ``selected_seqs_test.json`` and
``<category>/<sequence>/images/frame000001.{jpg,npz}``.
"""

import gzip
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.datasets.files import (
    LazyPhoto,
    OnDemand,
    array_file,
    json_file,
    known_depth,
    png16,
    png_depth,
    png_mask,
    require_file,
    subfolders,
)
from unposed.evaluation.datasets.poses import posed_camera
from unposed.geometry.transforms import invert_rigid, rigid
from unposed.views import Camera

_QUALITY = 0.5
_HALF = 0.5


def read(
    root: Path, scenes: Sequence[str] | None = None, *, set_list: str = "fewview_dev", part: str = "test"
) -> list[FrameSequence]:
    """Sequences of a set list, named "category/sequence", whose cameras have a quality score above 0.5.

    ``mask`` covers the object (probability); ``depth`` is 0 outside its depth mask.

    Args:
        root: the folder of categories.
        scenes: categories; all by default.
        set_list: "fewview_dev", "manyview_test_0", ...
        part: "train", "val" or "test" of the set list.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    what = "a category of CO3D with frame_annotations.jgz, sequence_annotations.jgz and set_lists"
    sequences = []
    for category in subfolders(Path(root), scenes, what, "frame_annotations.jgz"):
        try:
            sequences += _read_category(category, set_list, part)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"The annotations of {category} are not those of CO3D version 2 ({reason}).") from error
    return sequences


def read_prepared(root: Path, scenes: Sequence[str] | None = None, *, part: str = "test") -> OnDemand[FrameSequence]:
    """Sequences as DUSt3R prepares them, named "category/sequence", each read when asked for.

    ``mask`` covers the object.

    Args:
        root: the folder of ``selected_seqs_test.json``.
        scenes: categories; all of the list by default.
        part: "train" or "test".

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = Path(root)
    path = root / f"selected_seqs_{part}.json"
    selected = json_file(path, "the selection {category: {sequence: [frame numbers]}}")
    if not all(isinstance(sequences, dict) for sequences in selected.values()):
        raise UserError(f"{path} is no selection {{category: {{sequence: [frame numbers]}}}}.")
    if missing := set(scenes or ()) - set(selected):
        raise UserError(f"{path} has no category {min(missing)}; it has {', '.join(sorted(selected))}.")
    chosen = [category for category in selected if scenes is None or category in scenes]
    folders = [(root / category / name, numbers) for category in chosen for name, numbers in selected[category].items()]
    return OnDemand(len(folders), lambda k: _prepared_sequence(*folders[k]))


def _read_category(category: Path, set_list: str, part: str) -> list[FrameSequence]:
    scores = {
        entry["sequence_name"]: entry.get("viewpoint_quality_score")
        for entry in _annotations(category / "sequence_annotations.jgz")
    }
    path = category / "set_lists" / f"set_lists_{set_list}.json"
    chosen = {(name, int(number)) for name, number, _ in json_file(path, "a set list of CO3D").get(part, [])}
    frames = defaultdict(list)
    for entry in _annotations(category / "frame_annotations.jgz"):
        key = entry["sequence_name"], int(entry["frame_number"])
        if key in chosen and (scores.get(key[0]) or 0.0) > _QUALITY:
            frames[key[0]].append((key[1], entry))
    if not frames:
        raise UserError(f'The part "{part}" of {path} has no sequence with a quality score above {_QUALITY}.')
    return [
        FrameSequence(
            f"{category.name}/{name}",
            tuple(_raw_frame(category.parent, entry) for _, entry in sorted(entries, key=lambda item: item[0])),
            metric=False,
        )
        for name, entries in sorted(frames.items())
    ]


def _annotations(path: Path) -> Any:
    require_file(path, "annotations of CO3D")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return json.load(file)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); download it again.") from error


def _raw_frame(root: Path, entry: Mapping[str, Any]) -> Frame:
    depth, mask = entry.get("depth"), entry.get("mask")
    path = entry["image"]["path"]
    return Frame(
        LazyPhoto(path, root / path),
        _raw_camera(entry["viewpoint"], *entry["image"]["size"]) if entry.get("viewpoint") else None,
        partial(_raw_depth, root, depth) if depth else None,
        partial(png_mask, root / mask["path"]) if mask else None,
        time=entry.get("frame_timestamp"),
    )


def _raw_camera(viewpoint: Mapping[str, Any], height: int, width: int) -> Camera | None:
    """From PyTorch3D: row vectors, x left, y up; focal length and principal point in isotropic NDC, y up.

    NDC spans -1 to 1 over the shorter side, corner to corner, so the middle of the photo is at width / 2 in pixels that
    count from the corner: half a pixel less in ours.
    """
    if viewpoint.get("intrinsics_format", "ndc_isotropic") != "ndc_isotropic":
        raise UserError("These annotations are of CO3D version 1; version 2 is what can be read.")
    rotation = torch.tensor(viewpoint["R"], dtype=torch.float64)
    translation = torch.tensor(viewpoint["T"], dtype=torch.float64)
    rotation[:, :2] *= -1
    translation[:2] *= -1
    unit = min(height, width) / 2
    fx, fy = (value * unit for value in viewpoint["focal_length"])
    px, py = (value * unit for value in viewpoint["principal_point"])
    intrinsics = (fx, fy, width / 2 - px - _HALF, height / 2 - py - _HALF)
    return posed_camera(intrinsics, invert_rigid(rigid(rotation.T, translation)), (width, height))


def _raw_depth(root: Path, entry: Mapping[str, Any]) -> Float[Tensor, "height width"]:
    """The PNG's 16-bit words are the bits of float16 numbers, to be scaled."""
    values = png16(root / entry["path"]).view(np.float16).astype(np.float32) * entry["scale_adjustment"]
    depth = known_depth(values)
    mask = entry.get("mask_path")
    return torch.where(png_mask(root / mask) > 0, depth, 0.0) if mask and (root / mask).is_file() else depth


def _prepared_sequence(folder: Path, numbers: Sequence[int]) -> FrameSequence:
    try:
        frames = tuple(_prepared_frame(folder, int(number)) for number in numbers)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"The .npz files of {folder} are not as DUSt3R prepares them ({error}).") from error
    return FrameSequence(f"{folder.parent.name}/{folder.name}", frames, metric=False)


def _prepared_frame(folder: Path, number: int) -> Frame:
    photo = folder / "images" / f"frame{number:06d}.jpg"
    names = ("camera_pose", "camera_intrinsics", "maximum_depth")
    facts = array_file(photo.with_suffix(".npz"), "camera_pose, camera_intrinsics and maximum_depth", names)
    pose, intrinsics = (torch.from_numpy(facts[name]).double() for name in names[:2])
    farthest = float(np.nan_to_num(facts["maximum_depth"]))
    depth, mask = folder / "depths" / f"{photo.name}.geometric.png", folder / "masks" / f"frame{number:06d}.png"
    lazy = LazyPhoto(f"{folder.parent.name}/{folder.name}/{photo.name}", photo)
    return Frame(
        lazy,
        posed_camera(intrinsics, pose, lazy.size),
        partial(_prepared_depth, depth, farthest),
        partial(png_mask, mask) if mask.is_file() else None,
    )


def _prepared_depth(path: Path, farthest: float) -> Float[Tensor, "height width"]:
    return png_depth(path, 65535 / farthest) if farthest > 0 else torch.zeros(png16(path).shape)
