"""Frames of a video (PyAV): every n-th, evenly spread over time, or evenly spread over the motion in the picture."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

from unposed.errors import UserError

SUFFIXES = frozenset(
    {
        *(".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"),
        *(".wmv", ".3gp", ".mts", ".m2ts", ".ts", ".ogv", ".gif"),
    }
)
"""File endings (lower case) of videos."""
DEFAULT_FRAMES = 40
"""So many frames, evenly spread, are taken of a video when nothing else is asked for."""

_MOTION_SIZE = (160, 120)
"""Width and height of the grey frames that motion is measured on, whatever a frame's shape: DIS needs room to work."""
_UPRIGHT = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class Frame:
    """A frame of a video, upright, re-encoded as JPEG (quality 95, full chroma) so that hundreds fit in memory."""

    index: int
    """Counts the frames that can be decoded, from 0."""
    size: tuple[int, int]
    """(width, height) in pixels."""
    jpeg: bytes


def read_frames(
    path: Path, *, every: int | None = None, frames: int | None = None, by_motion: bool = False
) -> tuple[list[Frame], str | None]:
    """Chosen frames of a video in order of time, and a word on its damage if a part of it cannot be decoded.

    Args:
        path: The video file.
        every: Take frames 0, n, 2n, ...
        frames: Take so many, evenly spread (all, if there are fewer); ``DEFAULT_FRAMES`` if nothing is given.
        by_motion: Spread them evenly over the mean optical flow added up from frame to frame instead of over time, so
            that a resting camera gives few frames and a fast one many.

    Raises:
        UserError: no frame can be decoded, or the choice contradicts itself.
    """
    if every is not None and (frames is not None or by_motion):
        raise UserError("Frames are chosen either by every or by frames and by_motion; give one of them.")
    if (every is not None and every < 1) or (frames is not None and frames < 1):
        raise UserError("every and frames must be 1 or more.")
    decoder = _Decoder(path)
    if every is None:
        path_length = _motion(decoder) if by_motion else np.arange(decoder.count(), dtype=float)
        wanted = _evenly(path_length, frames or DEFAULT_FRAMES)
    chosen = []
    for index, frame in enumerate(decoder.frames()):
        if index % every == 0 if every is not None else index in wanted:
            chosen.append(_encode(index, frame))
        if every is None and len(chosen) == len(wanted):
            break
    if not chosen:
        raise UserError(f"No frame of {path} can be decoded ({decoder.damage or 'it has none'}); convert it to MP4.")
    return chosen, decoder.damage


class _Decoder:
    """Reads a video from its start, as often as wanted; leaves out what is damaged and remembers that it did."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damage: str | None = None

    def frames(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            try:
                decoded = packet.decode()
            except (av.error.FFmpegError, ValueError) as error:
                self.damage = f"partly damaged ({error})"
                continue
            yield from (frame for frame in decoded if isinstance(frame, av.VideoFrame))

    def count(self) -> int:
        """Number of packets with content, which is the number of frames of an undamaged video."""
        return sum(packet.size > 0 for packet in self._packets())

    def _packets(self) -> Iterator[av.Packet]:
        """Packets of the first video stream. Files that are lists of other places to read from are not followed."""
        try:
            with av.open(str(self._path), container_options={"protocol_whitelist": "file"}) as container:
                if not container.streams.video:
                    self.damage = "it has no pictures"
                    return
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                yield from container.demux(stream)
        except (av.error.FFmpegError, ValueError) as error:
            self.damage = f"partly damaged ({error})"


def _evenly(path_length: np.ndarray, count: int) -> set[int]:
    """Indices whose increasing ``path_length`` (one value a frame) is closest to ``count`` even steps."""
    if len(path_length) == 0:
        return set()
    targets = np.linspace(path_length[0], path_length[-1], min(count, len(path_length)))
    return {int(np.abs(path_length - target).argmin()) for target in targets}


def _motion(decoder: _Decoder) -> np.ndarray:
    """Mean length of the optical flow (DIS) between neighbouring frames, added up: one value a frame, the first 0."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    steps: list[float] = []
    previous: np.ndarray | None = None
    for frame in decoder.frames():
        grey = frame.reformat(*_MOTION_SIZE, "gray").to_ndarray()
        steps.append(0.0 if previous is None else _mean_length(flow.calc(previous, grey, None)))
        previous = grey
    return np.cumsum(steps)


def _mean_length(flow: Any) -> float:
    return float(np.linalg.norm(flow, axis=-1).mean())


def _encode(index: int, frame: av.VideoFrame) -> Frame:
    """Turn a frame upright by its display matrix and compress it."""
    image = frame.to_image()
    transposition = _UPRIGHT.get(round(frame.rotation) % 360)
    image = image if transposition is None else image.transpose(transposition)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    return Frame(index, image.size, buffer.getvalue())
