"""Point clouds as PLY (binary, little-endian): what MeshLab, CloudCompare, Blender and Open3D read."""

from pathlib import Path

import numpy as np

from unposed.io.atomic import atomic_write
from unposed.views import PointCloud

_COLOURS = ("red", "green", "blue")
_VERTEX = np.dtype([(name, "<f4") for name in "xyz"] + [(name, "u1") for name in _COLOURS] + [("confidence", "<f4")])
_NAMES = {"<f4": "float", "|u1": "uchar"}


def write_ply(path: str | Path, cloud: PointCloud) -> None:
    """Write points with colour and confidence (one scalar property more, which readers may ignore).

    Raises:
        UserError: the file cannot be written.
    """
    vertices = np.zeros(len(cloud.confidence), _VERTEX)
    for k, axis in enumerate("xyz"):
        vertices[axis] = cloud.positions[:, k].numpy()
    for k, colour in enumerate(_COLOURS):
        vertices[colour] = cloud.colours[:, k].numpy()
    vertices["confidence"] = cloud.confidence.numpy()
    properties = [f"property {_NAMES[_VERTEX[name].str]} {name}" for name in _VERTEX.names or ()]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}", *properties, "end_header"]
    with atomic_write(path) as temporary:
        temporary.write_bytes("\n".join([*header, ""]).encode("ascii") + vertices.tobytes())
