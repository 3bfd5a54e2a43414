"""Flow and disparity as the files of the benchmarks: .flo, .pfm, and KITTI's 16-bit PNG.

Disparity is positive and 0 where unknown; flow is (x, y) in pixels and NaN where unknown.
"""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.io.atomic import atomic_write

Disparity = Float[Tensor, "height width"]
Flow = Float[Tensor, "height width 2"]

MAX_SIDE = 65536
_FLO_TAG = 202021.25
_FLO_UNKNOWN = 1e10  # what is above 1e9 is unknown in .flo
_FLO_LARGEST = 1e9
_PFM_HEADER = re.compile(rb"(P[fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s")
_KITTI_DISPARITY = 256
_KITTI_FLOW, _KITTI_ZERO = 64, 2**15


def write_flo(path: str | Path, flow: Flow) -> None:
    """Middlebury's .flo: a tag, width, height, then x and y of every pixel, all little-endian.

    Raises:
        UserError: the place cannot be written.
    """
    values = torch.where(flow.isfinite().all(-1, keepdim=True), flow, _FLO_UNKNOWN).numpy().astype("<f4")
    header = struct.pack("<fii", _FLO_TAG, flow.shape[1], flow.shape[0])
    _write(path, header + values.tobytes())


def read_flo(path: str | Path) -> Flow:
    """Flow of a .flo file.

    Raises:
        UserError: no such file, damaged, or no .flo file.
    """
    data = _read(path)
    if len(data) < 12 or struct.unpack("<f", data[:4])[0] != _FLO_TAG:
        raise UserError(f"{path} is damaged or no .flo file; get it again.")
    width, height = struct.unpack("<ii", data[4:12])
    values = _values(path, data[12:], (height, width, 2), "<f4")
    unknown = ~(np.abs(values) < _FLO_LARGEST).all(-1, keepdims=True)
    return torch.from_numpy(np.where(unknown, np.float32(np.nan), values))


def write_pfm(path: str | Path, values: Float[Tensor, "height width"]) -> None:
    """A portable float map of one channel, little-endian, written as it is.

    Raises:
        UserError: the place cannot be written.
    """
    header = f"Pf\n{values.shape[1]} {values.shape[0]}\n-1.0\n".encode()
    _write(path, header + values.flip(0).contiguous().numpy().astype("<f4").tobytes())


def read_pfm(path: str | Path) -> Float[Tensor, "height width *channels"]:
    """Values of a portable float map as they are; with a third axis of 3 where it is one of colour.

    Raises:
        UserError: no such file, damaged, or no portable float map.
    """
    data = _read(path)
    header = _PFM_HEADER.match(data)
    if header is None:
        raise UserError(f"{path} is damaged or no .pfm file; get it again.")
    tag, width, height, scale = header.groups()
    shape = (int(height), int(width), 3) if tag == b"PF" else (int(height), int(width))
    values = _values(path, data[header.end() :], shape, "<f4" if scale.startswith(b"-") else ">f4")
    return torch.from_numpy(values.astype(np.float32)[::-1].copy())


def write_disparity_pfm(path: str | Path, disparity: Disparity) -> None:
    """Disparity as Middlebury has it: a .pfm, infinite where unknown.

    Raises:
        UserError: the place cannot be written.
    """
    write_pfm(path, torch.where(disparity > 0, disparity, torch.inf))


def write_disparity_png(path: str | Path, disparity: Disparity) -> None:
    """Disparity as KITTI has it: 16 bit, value = disparity * 256, 0 where unknown.

    Raises:
        UserError: a disparity of 256 pixels or more; the place cannot be written.
    """
    known = disparity > 0
    values = (disparity * _KITTI_DISPARITY).round()
    if float(values.max()) > 65535:
        raise UserError(
            f"disparities reach {float(disparity.max()):.0f} pixels and KITTI's PNG ends at 256: write a .pfm or .npz."
        )
    values = torch.where(known, values.clamp(min=1), 0)
    _write_png(path, values.numpy().astype(np.uint16))


def write_flow_png(path: str | Path, flow: Flow) -> None:
    """Flow as KITTI has it: 16 bit, (x * 64 + 2^15, y * 64 + 2^15, known).

    Raises:
        UserError: a flow of 512 pixels or more; the place cannot be written.
    """
    known = flow.isfinite().all(-1)
    values = torch.where(known[..., None], (flow * _KITTI_FLOW).round() + _KITTI_ZERO, 0)
    if float(values.min()) < 0 or float(values.max()) > 65535:
        raise UserError("the flow is longer than the 512 pixels that KITTI's PNG can hold: write a .flo or .npz.")
    channels = torch.cat([known[..., None].to(values), values.flip(-1)], -1)  # OpenCV writes blue first
    _write_png(path, channels.numpy().astype(np.uint16))


def read_disparity(path: str | Path) -> Disparity:
    """Disparity of a .pfm (Middlebury, ETH3D) or a 16-bit .png (KITTI).

    Raises:
        UserError: no such file, damaged, or of another kind.
    """
    kind = _kind(path, (".pfm", ".png"))
    if kind == ".pfm":
        values = read_pfm(path)
    else:
        values = torch.from_numpy(_read_png(path).astype(np.float32)) / _KITTI_DISPARITY
    if values.ndim != 2:
        raise UserError(f"{path} is a picture in colour and holds no disparity; give another file.")
    return torch.where(values.isfinite() & (values > 0), values, 0.0)


def read_flow(path: str | Path) -> Flow:
    """Flow of a .flo (Middlebury, Sintel) or a 16-bit .png (KITTI).

    Raises:
        UserError: no such file, damaged, or of another kind.
    """
    if _kind(path, (".flo", ".png")) == ".flo":
        return read_flo(path)
    values = _read_png(path).astype(np.float32)
    if values.ndim != 3 or values.shape[2] != 3:
        raise UserError(f"{path} has one channel where flow has three; give another file.")
    flow = (values[..., :0:-1] - _KITTI_ZERO) / _KITTI_FLOW
    return torch.from_numpy(np.where(values[..., :1] > 0, flow, np.float32(np.nan)))


DISPARITY_WRITERS: dict[str, Callable[[str | Path, Disparity], None]] = {
    ".pfm": write_disparity_pfm,
    ".png": write_disparity_png,
}
"""By suffix."""
FLOW_WRITERS: dict[str, Callable[[str | Path, Flow], None]] = {".flo": write_flo, ".png": write_flow_png}
"""By suffix."""


def _kind(path: str | Path, known: tuple[str, ...]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise UserError(f"{path} is none of {' or '.join(known)}; give a file of that kind.")
    return suffix


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its name.") from error


def _write(path: str | Path, data: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _values(path: str | Path, data: bytes, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """The numbers of a file, whose sides must be possible and whose length must fit."""
    if not all(0 < side <= MAX_SIDE for side in shape[:2]) or len(data) != 4 * int(np.prod(shape, dtype=np.int64)):
        raise UserError(f"{path} is damaged: it does not hold {shape[1]} x {shape[0]} pixels; get it again.")
    return np.frombuffer(data, kind).reshape(shape)


def _write_png(path: str | Path, values: np.ndarray) -> None:
    _write(path, cv2.imencode(".png", values)[1].tobytes())


def _read_png(path: str | Path) -> np.ndarray:
    data = np.frombuffer(_read(path), np.uint8)
    values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if values is None:
        raise UserError(f"{path} is damaged or no PNG; get it again.")
    if values.dtype != np.uint16:
        raise UserError(f"{path} is no 16-bit PNG, as disparity and flow of KITTI are; give another file.")
    return values
