"""Indoor scans whose pairs, cameras and photos are listed in one file: ScanNet++ and ARKitScenes."""

from pathlib import Path

import numpy as np

from unposed.errors import UserError
from unposed.train.datasets.base import TrainingView
from unposed.train.datasets.files import index_rows, read_arrays, read_depth_png, stem, text, view


class ListedScans:
    """Pairs of ``all_metadata.npz``, in metres.

    It holds ``scenes`` (names), and for every photo ``sceneids`` (its scene), ``images`` (file names), ``intrinsics``
    (3 x 3) and ``trajectories`` (world from camera, 4 x 4); ``pairs`` are rows of two photos (further columns, such as
    a score, are not used).
    """

    name: str
    picture_folder: str
    depth_folder: str
    metric = True

    def __init__(self, folder: Path) -> None:
        """``folder`` holds ``all_metadata.npz`` and the scenes."""
        path = folder / "all_metadata.npz"
        self._folder = folder
        names = ("scenes", "sceneids", "images", "intrinsics", "trajectories", "pairs")
        self._scenes, self._scene_of, self._images, self._intrinsics, self._poses, pairs = read_arrays(path, *names)
        photos = len(self._images)
        if any(len(rows) != photos for rows in (self._scene_of, self._intrinsics, self._poses)):
            raise UserError(f"{path} does not have a scene, a camera and a pose for each photo: make it again.")
        self._pairs = index_rows(path, pairs, photos, photos)

    def __len__(self) -> int:
        return len(self._pairs)

    def pair(self, index: int, rng: np.random.Generator) -> tuple[TrainingView, TrainingView]:
        """Row ``index`` of the list."""
        first, second = self._pairs[index]
        return self._view(int(first)), self._view(int(second))

    def _view(self, photo: int) -> TrainingView:
        scene, name = text(self._scenes[self._scene_of[photo]]), stem(self._images[photo])
        folder = self._folder / scene
        depth = read_depth_png(folder / self.depth_folder / f"{name}.png")
        picture = folder / self.picture_folder / f"{name}.jpg"
        return view(picture, depth, self._intrinsics[photo], self._poses[photo], f"{self.name}/{scene}")


class ScanNetPlusPlus(ListedScans):
    """ScanNet++: ``<scene>/images/*.jpg`` and ``<scene>/depth/*.png`` (millimetres), beside ``all_metadata.npz``."""

    name, picture_folder, depth_folder = "scannetpp", "images", "depth"

    def __init__(self, root: Path) -> None:
        """There is one list, of the training scenes."""
        super().__init__(root)


class ArkitScenes(ListedScans):
    """ARKitScenes: ``Training/`` and ``Test/``, each with ``all_metadata.npz``.

    Beside it are ``<scene>/vga_wide/*.jpg`` and ``<scene>/lowres_depth/*.png`` (millimetres), upright.
    """

    name, picture_folder, depth_folder = "arkitscenes", "vga_wide", "lowres_depth"

    def __init__(self, root: Path, split: str = "train") -> None:
        """``split`` is ``train`` or ``test``."""
        if split not in ("train", "test"):
            raise UserError(f"ARKitScenes has no split {split}: use train or test.")
        super().__init__(root / ("Training" if split == "train" else "Test"))
