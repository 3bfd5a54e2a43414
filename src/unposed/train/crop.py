"""Crop and resize of a posed training photo with its depth and intrinsics (DUSt3R's data rule)."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image


@dataclass(frozen=True, eq=False)
class PosedImage:
    """A photo with z-depth and intrinsics of the same pixels; depth 0 is unknown."""

    image: UInt8[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "height width"]
    intrinsics: Float[np.ndarray, "3 3"]
    sparse: bool = False
    """Depth is known at single pixels, none of which a smaller picture can spare."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.image.shape[1], self.image.shape[0]

    def cropped(self, left: int, top: int, width: int, height: int) -> "PosedImage":
        """The window whose top-left pixel is (left, top)."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        intrinsics = self.intrinsics.copy()
        intrinsics[:2, 2] -= left, top
        return replace(self, image=self.image[rows, columns], depth=self.depth[rows, columns], intrinsics=intrinsics)

    def resized(self, scale: float, enlarge: Image.Resampling = Image.Resampling.BICUBIC) -> "PosedImage":
        """Scaled to floor(size * scale): colours by Lanczos (down) or ``enlarge`` (up), depth by nearest neighbour.

        Sparse depth goes where its pixels go, the nearest to the camera first.
        """
        width, height = (int(np.floor(side * scale)) for side in self.size)
        method = Image.Resampling.LANCZOS if scale < 1 else enlarge
        image = np.asarray(Image.fromarray(self.image).resize((width, height), method))
        if self.sparse:
            depth = _scattered(self.depth, (width, height), scale)
        else:
            depth = cv2.resize(self.depth, (width, height), interpolation=cv2.INTER_NEAREST)
        intrinsics = self.intrinsics.copy()
        intrinsics[:2, :2] *= scale
        intrinsics[:2, 2] = _centre_after(intrinsics[:2, 2], scale, np.array(self.size) * scale - (width, height))
        return replace(self, image=image, depth=depth, intrinsics=intrinsics)


def training_view(
    view: PosedImage,
    resolution: tuple[int, int],
    rng: np.random.Generator,
    focal_jitter: int = 0,
    enlarge: Image.Resampling = Image.Resampling.BICUBIC,
) -> PosedImage:
    """The photo at exactly ``resolution`` (width >= height), or at its transpose for a portrait photo.

    Crops symmetrically around the principal point, picks the orientation (a coin for nearly square photos), scales
    just enough to cover the target and crops its centre. ``focal_jitter`` k > 0 scales to a target up to k - 1 pixels
    larger, which varies the focal length. ``enlarge`` is the filter for photos that are too small (Reloc3r: Lanczos).
    """
    view = _centred_on_principal_point(view)
    width, height = view.size
    target = np.array(resolution)
    nearly_square = 0.9 < height / width < 1.1 and resolution[0] != resolution[1]
    if height > 1.1 * width or (nearly_square and rng.integers(2)):
        target = target[::-1]
    covered = target + (rng.integers(focal_jitter) if focal_jitter else 0)
    view = view.resized(float((covered / view.size).max()) + 1e-8, enlarge)
    centre = view.intrinsics[:2, 2]  # ties of half a pixel fall as the float32 principal point has them
    left, top = np.rint(centre - _centre_after(centre, 1.0, np.array(view.size) - target)).astype(int)
    return view.cropped(int(left), int(top), int(target[0]), int(target[1]))


def _centre_after(
    centre: Float[np.ndarray, "2"], scale: float, margin: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "2"]:
    """Principal point after scaling about the image's corner and cutting half of ``margin`` on each side."""
    moved = centre + 0.5
    moved *= scale
    moved -= margin / 2
    return moved - 0.5


def _scattered(
    depth: Float[np.ndarray, "height width"], size: tuple[int, int], scale: float
) -> Float[np.ndarray, "new_height new_width"]:
    """Every known depth at the pixel of the scaled picture (width, height) that its own lies in."""
    width, height = size
    rows, columns = np.nonzero(depth)
    farthest_first = np.argsort(-depth[rows, columns])
    rows, columns = rows[farthest_first], columns[farthest_first]
    made = np.zeros((height, width), np.float32)
    y, x = (((index + 0.5) * scale).astype(int) for index in (rows, columns))
    made[y.clip(max=height - 1), x.clip(max=width - 1)] = depth[rows, columns]
    return made


def _centred_on_principal_point(view: PosedImage) -> PosedImage:
    """The largest window in which the rounded principal point is the centre."""
    centre = np.rint(view.intrinsics[:2, 2]).astype(int)
    half_width, half_height = np.minimum(centre, np.array(view.size) - centre)
    return view.cropped(centre[0] - half_width, centre[1] - half_height, 2 * half_width, 2 * half_height)
