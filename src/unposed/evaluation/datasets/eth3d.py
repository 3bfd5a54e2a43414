"""ETH3D, high-resolution multi-view (Schoeps et al., CVPR 2017): metres, laser-scanned depth.

In ``<scene>/``: ``images/dslr_images_undistorted/DSC_0001.JPG``, ``dslr_calibration_undistorted/*.txt`` (COLMAP,
PINHOLE), ``ground_truth_depth/dslr_images/DSC_0001.JPG`` (raw float32 at the size of the ORIGINAL photo, which is
distorted; inf is unknown), ``dslr_calibration_jpg/*.txt`` (cameras of the original photos) and
``dslr_scan_eval/{scan1.ply,scan_alignment.mlp}``.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.evaluation.datasets.colmap_text import TextCamera, TextModel
from unposed.evaluation.datasets.files import LazyPhoto, known_depth, require_file, subfolders
from unposed.evaluation.datasets.points import read_points
from unposed.evaluation.datasets.poses import pose_matrix
from unposed.geometry.cameras import pixel_grid
from unposed.geometry.transforms import transform_points
from unposed.views import Camera

TRAINING = (
    "courtyard", "delivery_area", "electro", "facade", "kicker", "meadow", "office", "pipes", "playground", "relief",
    "relief_2", "terrace", "terrains",
)  # fmt: skip
"""The scenes with public truth."""
_HALF = 0.5
_ROWS = 256


def read(root: Path, scenes: Sequence[str] | None = None) -> list[FrameSequence]:
    """The undistorted photos of each scene; depth is brought from the distorted photo to the undistorted one.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    from unposed.io.colmap import read_colmap

    what = "a scene of ETH3D with dslr_calibration_undistorted"
    sequences = []
    for folder in subfolders(Path(root), scenes, what, "dslr_calibration_undistorted"):
        cameras = read_colmap(folder / "dslr_calibration_undistorted").cameras
        original = cache(partial(TextModel, folder / "dslr_calibration_jpg"))
        frames = [_frame(folder, name, cameras[name], original) for name in sorted(cameras)]
        alignment = folder / "dslr_scan_eval" / "scan_alignment.mlp"
        points = partial(read_scans, alignment) if alignment.is_file() else None
        sequences.append(FrameSequence(folder.name, tuple(frames), points=points))
    return sequences


def read_raw_depth(path: Path, size: tuple[int, int]) -> Float[Tensor, "height width"]:
    """Depth of an original, distorted photo of ``size`` (width, height): float32, row by row.

    Raises:
        UserError: no such file, or not of that size.
    """
    values = np.fromfile(require_file(path, "raw depth of ETH3D"), "<f4")
    if values.size != size[0] * size[1]:
        raise UserError(
            f"{path} holds {values.size} values; {size[0]} x {size[1]} are due, the size before undistortion."
        )
    return known_depth(values.reshape(size[1], size[0]))


def read_scans(alignment: Path) -> Float[Tensor, "n 3"]:
    """All laser scans of a scene in its world; ``alignment`` is the MeshLab project that places them.

    Raises:
        UserError: something is missing or damaged.
    """
    try:
        meshes = ElementTree.parse(require_file(alignment, "the alignment of the scans")).getroot().iter("MLMesh")
        placed = [(mesh.attrib["filename"], (mesh.findtext("MLMatrix44") or "").split()) for mesh in meshes]
        poses = {name: pose_matrix([float(word) for word in words]) for name, words in placed}
    except (ElementTree.ParseError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{alignment} is no MeshLab project of ETH3D ({error}); download it again.") from error
    scans = [transform_points(pose.float(), read_points(alignment.parent / name)) for name, pose in poses.items()]
    return torch.cat(scans)


def _frame(folder: Path, name: str, camera: Camera, original: Callable[[], TextModel]) -> Frame:
    photo = PurePosixPath(name).name
    depth = folder / "ground_truth_depth" / "dslr_images" / photo
    return Frame(
        LazyPhoto(photo, folder / "images" / name),
        camera,
        partial(_undistorted_depth, depth, camera, original) if depth.is_file() else None,
    )


def _undistorted_depth(path: Path, camera: Camera, original: Callable[[], TextModel]) -> Float[Tensor, "height width"]:
    """Depth at the pixels of the undistorted photo: that of the nearest pixel of the original one.

    Undistortion keeps the camera's centre and axes, so depth along z stays what it is.
    """
    name = next((name for name in original().images if PurePosixPath(name).name == path.name), None)
    if name is None:
        raise UserError(f"dslr_calibration_jpg has no camera of {path.name}, which is needed for {path}.")
    lens = original().camera(name)
    raw = read_raw_depth(path, (lens.width, lens.height))
    depth = torch.zeros(camera.height, camera.width)
    for top in range(0, camera.height, _ROWS):
        pixels = pixel_grid(min(_ROWS, camera.height - top), camera.width)
        pixels[..., 1] += top
        rays = (pixels - camera.intrinsics[:2, 2]) / camera.intrinsics.diagonal()[:2]
        column, row = (distort(lens, rays) - _HALF).round().long().unbind(-1)
        inside = (column >= 0) & (row >= 0) & (column < lens.width) & (row < lens.height)
        found = raw[row.clamp(0, lens.height - 1), column.clamp(0, lens.width - 1)]
        depth[top : top + len(pixels)] = torch.where(inside, found, 0.0)
    return depth


def distort(lens: TextCamera, rays: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
    """Pixels (COLMAP's: the corner is the origin) of rays (x / z, y / z) through a THIN_PRISM_FISHEYE or PINHOLE lens.

    Equidistant projection with radial (k1 to k4), tangential (p1, p2) and thin-prism (sx1, sy1) terms.

    Raises:
        UserError: another lens.
    """
    fx, fy, cx, cy, *terms = lens.parameters
    if lens.model == "THIN_PRISM_FISHEYE" and len(terms) == 8:
        k1, k2, p1, p2, k3, k4, sx1, sy1 = terms
        radius = rays.norm(dim=-1, keepdim=True).clamp(min=1e-9)
        rays = rays * torch.atan(radius) / radius
        u, v = rays.unbind(-1)
        r2 = u.square() + v.square()
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
        x = u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u.square()) + sx1 * r2
        y = v * radial + 2 * p2 * u * v + p1 * (r2 + 2 * v.square()) + sy1 * r2
        rays = torch.stack([x, y], -1)
    elif lens.model != "PINHOLE":
        raise UserError(f"The original camera is {lens.model}; ETH3D's THIN_PRISM_FISHEYE is what can be read.")
    return rays * rays.new_tensor([fx, fy]) + rays.new_tensor([cx, cy])
