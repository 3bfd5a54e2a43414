"""WildRGB-D: videos of single objects with the depth of a phone's sensor."""

from pathlib import Path

from unposed.train.datasets.base import TrainingView
from unposed.train.datasets.co3d import Sequences, object_mask
from unposed.train.datasets.files import read_arrays, read_depth_png, view


class WildRgbd(Sequences):
    """WildRGB-D; pairs as of CO3Dv2.

    Layout of a sequence ``<category>/<sequence>/``: ``rgb/%05d.jpg``, ``depth/%05d.png`` (millimetres),
    ``masks/%05d.png``, ``metadata/%05d.npz`` (``camera_intrinsics``, ``camera_pose``).
    """

    name = "wildrgbd"
    metric = True

    def _view(self, folder: Path, frame: int, masked: bool, label: str) -> TrainingView:
        name = f"{frame:05d}"
        intrinsics, placed = read_arrays(folder / "metadata" / f"{name}.npz", "camera_intrinsics", "camera_pose")
        depth = read_depth_png(folder / "depth" / f"{name}.png")
        if masked:
            depth = depth * object_mask(folder / "masks" / f"{name}.png")
        return view(folder / "rgb" / f"{name}.jpg", depth, intrinsics, placed, label)
