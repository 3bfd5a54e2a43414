"""COLMAP reconstructions as training data: dense where multi-view stereo has run, sparse points where not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from unposed.errors import UserError
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.io.colmap_depth import read_colmap_depth
from unposed.train.crop import PosedImage
from unposed.train.datasets.base import TrainingView
from unposed.train.datasets.files import read_picture, view
from unposed.views import Camera

_MODELS = ("sparse/0", "sparse", "")


def is_colmap(folder: Path) -> bool:
    """Whether there is a COLMAP model beside a folder ``images``."""
    return (folder / "images").is_dir() and _model(folder) is not None


class ColmapFolder:
    """A COLMAP workspace: ``images/`` and a model of undistorted cameras (``sparse/0``, ``sparse`` or beside).

    Depth of a photo is ``stereo/depth_maps/<name>.geometric.bin``; photos without one are left out. Where there is none
    at all, it is the depth of the sparse points that a photo observes, at their pixels only.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ``UserError`` for a model that cannot be read, distorted cameras, or fewer than two photos."""
        from unposed.io.colmap import read_colmap  # brings pycolmap

        model_folder = _model(folder)
        if model_folder is None:
            raise UserError(f"{folder} holds no COLMAP model (cameras.bin or cameras.txt).")
        self.folder = folder
        cameras, tracks = read_colmap(model_folder)
        dense = {name: _depth_path(folder, name) for name in cameras}
        found = {name for name, path in dense.items() if path.is_file()}
        self._dense = bool(found)
        kept = [k for k, name in enumerate(cameras) if not found or name in found]
        if len(kept) < 2:
            raise UserError(f"{folder} has fewer than two photos with a pose and depth: training needs both.")
        names = list(cameras)
        self._names = [names[k] for k in kept]
        self._cameras = [cameras[name] for name in self._names]
        self._points = tracks.points.double()
        of_photo = [tracks.view.numpy() == k for k in kept]
        self._observed = [tracks.track.numpy()[mine] for mine in of_photo]
        self._pixels = [tracks.pixel.numpy()[mine] for mine in of_photo]

    def __len__(self) -> int:
        return len(self._names)

    def view(self, index: int) -> TrainingView:
        """One photo at its own size, or at that of its depth map."""
        name, camera = self._names[index], self._cameras[index]
        picture = self.folder / "images" / name
        label = f"colmap/{self.folder.name}"
        if not self._dense:
            made = view(picture, self._sparse_depth(camera, index), camera.intrinsics, camera.world_from_camera, label)
            return replace(made, photo=replace(made.photo, sparse=True))
        depth = read_colmap_depth(_depth_path(self.folder, name))
        pixels, intrinsics = _resized(read_picture(picture), depth.shape, camera.intrinsics)
        return TrainingView(
            PosedImage(pixels, depth, intrinsics), camera.world_from_camera.numpy().astype(np.float32), label, name
        )

    def _sparse_depth(self, camera: Camera, index: int) -> Float[np.ndarray, "height width"]:
        """Depth of the observed points at the pixels where they are observed."""
        points = transform_points(invert_rigid(camera.world_from_camera.double()), self._points[self._observed[index]])
        x, y = self._pixels[index].round().astype(int).T
        kept = (points[:, 2].numpy() > 0) & (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
        depth = np.zeros((camera.height, camera.width), np.float32)
        depth[y[kept], x[kept]] = points[kept, 2].numpy()
        return depth

    def pairs(self, least_overlap: float) -> list[tuple[int, int]]:
        """Ordered pairs (i, j) where j observes at least this share of the sparse points that i observes."""
        rows = np.repeat(np.arange(len(self)), [len(tracks) for tracks in self._observed])
        tracks = np.concatenate(self._observed)
        seen = scipy.sparse.csr_array((np.ones(len(rows)), (rows, tracks)), (len(self), len(self._points)))
        seen.data[:] = 1  # a photo may observe a point twice
        shared = (seen @ seen.T).tocoo()
        own = np.maximum(seen.sum(1), 1)
        enough = (shared.row != shared.col) & (shared.data >= least_overlap * own[shared.row])
        return sorted(zip(shared.row[enough].tolist(), shared.col[enough].tolist(), strict=True))


def _model(folder: Path) -> Path | None:
    """The folder of a workspace that holds its model."""
    found = (folder / name for name in _MODELS)
    return next((path for path in found if any((path / f"cameras.{end}").is_file() for end in ("bin", "txt"))), None)


def _depth_path(folder: Path, name: str) -> Path:
    return folder / "stereo" / "depth_maps" / f"{name}.geometric.bin"


def _resized(
    picture: UInt8[np.ndarray, "height width 3"], shape: tuple[int, ...], intrinsics: Float[Tensor, "3 3"]
) -> tuple[UInt8[np.ndarray, "new_height new_width 3"], Float[np.ndarray, "3 3"]]:
    """A picture and its intrinsics at the size of its depth map, which may be smaller."""
    k = intrinsics.numpy().astype(np.float32)
    if picture.shape[:2] == shape:
        return picture, k
    height, width = shape
    scale = np.array([width / picture.shape[1], height / picture.shape[0]], np.float32)
    k[:2, 2] = (k[:2, 2] + 0.5) * scale - 0.5
    k[[0, 1], [0, 1]] *= scale
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)), k
