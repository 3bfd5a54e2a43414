"""Whether COLMAP's binary files are whole: its own reader loops without end, or for all memory, on some that are cut.

Layouts: COLMAP documentation, "Output Format", binary; frames and rigs since COLMAP 3.12.
"""

import struct
from collections.abc import Callable
from pathlib import Path

_POSE = 7 * 8
_PINHOLES = {0: 3, 1: 4}  # number of parameters of SIMPLE_PINHOLE and PINHOLE, by model id
_OBSERVATION, _TRACK_ELEMENT, _DATA_ID = 8 + 8 + 8, 4 + 4, 4 + 4 + 8


class _Reader:
    """A position in a file's bytes that never leaves them."""

    def __init__(self, path: Path) -> None:
        self._data, self._at, self._name = path.read_bytes(), 0, path.name

    def skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise ValueError(f"{self._name} is cut short")

    def number(self, layout: str) -> int:
        start = self._at
        self.skip(struct.calcsize(layout))
        return int(struct.unpack_from(layout, self._data, start)[0])

    def skip_string(self) -> None:
        end = self._data.find(b"\0", self._at)
        self.skip((end if end >= 0 else len(self._data)) + 1 - self._at)

    def finish(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"{self._name} is longer than it says")


def check_binary_model(directory: Path) -> None:
    """Walk through the binary files of a model folder.

    Raises:
        ValueError: one of them is cut or contradicts itself.
    """
    entries: dict[str, Callable[[_Reader], None]] = {
        "cameras.bin": _skip_camera,
        "images.bin": _skip_image,
        "points3D.bin": _skip_point,
        "frames.bin": _skip_frame,
        "rigs.bin": _skip_rig,
    }
    for name, skip_entry in entries.items():
        if (directory / name).is_file():
            reader = _Reader(directory / name)
            for _ in range(reader.number("<Q")):
                skip_entry(reader)
            reader.finish()


def _skip_camera(reader: _Reader) -> None:
    reader.skip(4)  # camera id
    model = reader.number("<i")
    if model not in _PINHOLES:
        raise ValueError("a camera is no PINHOLE or SIMPLE_PINHOLE; undistort the model (colmap image_undistorter)")
    reader.skip(8 + 8 + 8 * _PINHOLES[model])  # width, height, parameters


def _skip_image(reader: _Reader) -> None:
    reader.skip(4 + _POSE + 4)  # image id, pose, camera id
    reader.skip_string()
    reader.skip(reader.number("<Q") * _OBSERVATION)


def _skip_point(reader: _Reader) -> None:
    reader.skip(8 + 3 * 8 + 3 + 8)  # id, position, colour, error
    reader.skip(reader.number("<Q") * _TRACK_ELEMENT)


def _skip_frame(reader: _Reader) -> None:
    reader.skip(4 + 4 + _POSE)  # frame id, rig id, pose
    reader.skip(reader.number("<I") * _DATA_ID)


def _skip_rig(reader: _Reader) -> None:
    reader.skip(4)  # rig id
    sensors = reader.number("<I")
    if sensors:
        reader.skip(4 + 4)  # type and id of the reference sensor
    for _ in range(sensors - 1):
        reader.skip(4 + 4)
        if reader.number("<B"):
            reader.skip(_POSE)
