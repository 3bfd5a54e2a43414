"""RealEstate10K (Zhou et al., SIGGRAPH 2018) and ACID (Liu et al., ICCV 2021): clips of videos, lengths up to scale.

As published: ``<split>/<id>.txt``, the video's address, then a line a frame; the frames lie in ``frames/<split>/<id>/``
(or ``<split>/<id>/``) as ``<timestamp>.jpg`` or ``.png``. As pixelSplat packs them: ``<split>/index.json`` (clip to
chunk) and ``<split>/000000.torch``, each a list of clips with their JPEG bytes.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence, NovelViews, PosedPair
from unposed.evaluation.datasets.files import (
    LazyPhoto,
    OnDemand,
    first_existing,
    json_file,
    listed,
    require_file,
    require_folder,
    text_lines,
)
from unposed.evaluation.datasets.poses import pose_matrix, posed_camera
from unposed.geometry.transforms import invert_rigid

_MICROSECONDS = 1e6
_HALF = 0.5


def read(root: Path, scenes: Sequence[str] | None = None, *, split: str = "test") -> OnDemand[FrameSequence]:
    """Clips as published, each read when asked for; frames that were not downloaded are left out.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = Path(root)
    what = "clips of RealEstate10K or ACID, <id>.txt"
    if scenes is None:
        files = listed(root / split, "*.txt", what)
    else:
        files = [require_file(root / split / f"{name}.txt", "a clip of RealEstate10K or ACID") for name in scenes]
    return OnDemand(len(files), lambda k: _read_clip(root, files[k]))


def read_chunks(root: Path, scenes: Sequence[str] | None = None, *, split: str = "test") -> OnDemand[FrameSequence]:
    """Clips as pixelSplat packs them, each read when asked for, in the order of the chunks.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    chunks = _Chunks(Path(root) / split)
    names = chunks.names(scenes)
    return OnDemand(len(names), lambda k: FrameSequence(names[k], chunks.frames(names[k]), metric=False))


def read_novel_views(
    root: Path, scenes: Sequence[str] | None = None, *, index: Path | None = None, split: str = "test"
) -> OnDemand[NovelViews]:
    """Two known views and the views to be made of them, of an evaluation index, in the order of the chunks.

    Args:
        root: the folder of the splits, as pixelSplat packs them.
        scenes: clips; all of the index by default.
        index: JSON {clip: {context: [a, b], target: [...], overlap: x} or null}, by default ``evaluation_index.json``
            in the root; clips that are null are left out.
        split: which split the index is of.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    file = Path(root) / "evaluation_index.json" if index is None else Path(index)
    entries = {name: entry for name, entry in json_file(file, "an evaluation index").items() if entry}
    chunks = _Chunks(Path(root) / split)
    names = chunks.names(list(entries) if scenes is None else [name for name in scenes if name in entries])
    return OnDemand(len(names), lambda k: _novel_views(names[k], chunks.frames(names[k]), entries[names[k]]))


def read_pairs(
    root: Path, scenes: Sequence[str] | None = None, *, index: Path | None = None, split: str = "test"
) -> OnDemand[PosedPair]:
    """The context pairs of :func:`read_novel_views`, which relative-pose tables of splatting models are made of.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    views = read_novel_views(root, scenes, index=index, split=split)

    def pair(k: int) -> PosedPair:
        item = views[k]
        a, b = item.context
        if a.camera is None or b.camera is None:
            raise UserError(f"The clip {item.name} has an invalid camera; download it again.")
        return PosedPair(item.name, a, b, b.camera.camera_from_world @ a.camera.world_from_camera, item.overlap)

    return OnDemand(len(views), pair)


def _novel_views(name: str, frames: Sequence[Frame], entry: Mapping[str, Any]) -> NovelViews:
    try:
        context, targets = (tuple(frames[k] for k in entry[key]) for key in ("context", "target"))
    except (IndexError, KeyError) as error:
        raise UserError(f"The evaluation index does not fit the clip {name} of {len(frames)} frames.") from error
    return NovelViews(name, context, targets, entry.get("overlap"))


def _read_clip(root: Path, file: Path) -> FrameSequence:
    split, name = file.parent.name, file.stem
    folder = first_existing(root / "frames" / split / name, root / "frames" / name, file.parent / name)
    photos = {path.stem: path for path in require_folder(folder, f"the frames of the clip {name}").iterdir()}
    frames, size = [], None
    for line in text_lines(file, "a clip of RealEstate10K or ACID")[1:]:
        words = line.split()
        if len(words) != 19:
            raise UserError(f"{file} has a line of {len(words)} words in place of 19; download it again.")
        if words[0] not in photos:
            continue
        try:
            stamp, row = int(words[0]), [float(word) for word in words[1:]]
        except ValueError as error:
            raise UserError(f"{file} has a line that is not numbers ({error}); download it again.") from error
        photo = LazyPhoto(f"{name}/{photos[words[0]].name}", photos[words[0]])
        size = size or photo.size
        frames.append(_frame(photo, stamp, row, size))
    if not frames:
        raise UserError(f"{folder} holds none of the frames of {file.name}: <timestamp>.jpg or .png are expected.")
    return FrameSequence(name, tuple(frames), metric=False)


def _frame(photo: LazyPhoto, timestamp: int, row: Sequence[float], size: tuple[int, int]) -> Frame:
    """``row``: fx, fy, cx, cy as shares of the width and height, two zeros, 3x4 world to camera.

    A share of the width counts from the corner of the photo: half a pixel less in our pixels.
    """
    width, height = size
    intrinsics = (row[0] * width, row[1] * height, row[2] * width - _HALF, row[3] * height - _HALF)
    camera = posed_camera(intrinsics, invert_rigid(pose_matrix(row[6:])), size)
    return Frame(photo, camera, time=timestamp / _MICROSECONDS)


def _picture_bytes(image: UInt8[Tensor, "bytes"]) -> bytes:
    return bytes(image.numpy().tobytes())


class _Chunks:
    """The packed clips of one split; one chunk is held in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._chunk_of = json_file(folder / "index.json", "the index {clip: chunk file}")
        self._load = lru_cache(maxsize=1)(self._read)

    def names(self, chosen: Sequence[str] | None) -> list[str]:
        """The chosen clips, or all, in the order of their chunks."""
        if missing := set(chosen or ()) - set(self._chunk_of):
            raise UserError(f"{self._folder / 'index.json'} has no clip {min(missing)}; check the split.")
        position = {name: k for k, name in enumerate(self._chunk_of)}
        names = list(self._chunk_of) if chosen is None else list(chosen)
        return sorted(names, key=lambda name: (str(self._chunk_of[name]), position[name]))

    def frames(self, name: str) -> tuple[Frame, ...]:
        """All frames of a clip."""
        clips = self._load(self._chunk_of[name])
        if name not in clips:
            raise UserError(f"{self._folder / self._chunk_of[name]} does not hold the clip {name}; pack it again.")
        clip = clips[name]
        if not {"cameras", "timestamps", "images"} <= clip.keys():
            raise UserError(f"The clip {name} in {self._folder} lacks cameras, timestamps or images; pack it again.")
        size, frames = None, []
        for row, stamp, image in zip(clip["cameras"], clip["timestamps"].tolist(), clip["images"], strict=True):
            photo = LazyPhoto(f"{name}/{stamp}.jpg", None, partial(_picture_bytes, image))
            size = size or photo.size
            frames.append(_frame(photo, stamp, row.tolist(), size))
        return tuple(frames)

    def _read(self, file: str) -> dict[str, Any]:
        path = require_file(self._folder / file, "a chunk of clips")
        try:
            return {clip["key"]: clip for clip in torch.load(path, map_location="cpu", weights_only=True)}
        except Exception as error:  # a damaged or hostile file can raise nearly anything
            raise UserError(f"{path} is damaged or holds more than tensors; pack it again.") from error
