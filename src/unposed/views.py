"""The nouns that travel through the house: a view of a photo, a camera, matches, what a model says of a pair.

Frames: camera axes x right, y down, z forward; pixel (0, 0) is the centre of the top-left pixel.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from unposed.geometry.rotations import rotation_angle
from unposed.geometry.transforms import invert_rigid

Pair = tuple[int, int]
"""Indices (i, j) of two views; the prediction for it is in the camera frame of view i."""


@dataclass(frozen=True, eq=False)
class View:
    """A photo as a network sees it: resized and cropped, with the exact way back to the original pixels."""

    name: str
    """Unique name, relative to the photo folder; names the camera in every export."""
    image: UInt8[Tensor, "height width 3"]
    """RGB pixels."""
    original_from_view: Float[Tensor, "3 3"]
    """Affine map (float64) from this view's pixels to the original photo's pixels (after EXIF rotation)."""
    original_size: tuple[int, int]
    """(width, height) of the original photo after EXIF rotation."""
    path: Path | None = None
    """File the photo came from; None for a frame of a video or an array."""
    exif_focal: float | None = None
    """Focal length in original pixels as the file's EXIF tells, if it does. A hint, never trusted alone."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of ``image``."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True, eq=False)
class Camera:
    """A posed pinhole camera."""

    intrinsics: Float[Tensor, "3 3"]
    """K in pixels of an image of ``width`` x ``height``."""
    world_from_camera: Float[Tensor, "4 4"]
    """Rigid transform from the camera frame to the world."""
    width: int
    height: int

    @property
    def camera_from_world(self) -> Float[Tensor, "4 4"]:
        """Inverse of ``world_from_camera`` (extrinsics in the COLMAP sense)."""
        return invert_rigid(self.world_from_camera)

    @property
    def centre(self) -> Float[Tensor, "3"]:
        """Camera centre in the world."""
        return self.world_from_camera[:3, 3]

    def through(self, affine: Float[Tensor, "3 3"], width: int, height: int) -> "Camera":
        """The same camera for an image whose pixels are ``affine`` times ours, e.g. ``original_from_view``."""
        intrinsics = affine.to(torch.float64) @ self.intrinsics.to(torch.float64)
        return replace(self, intrinsics=intrinsics.to(self.intrinsics), width=width, height=height)


@dataclass(frozen=True, eq=False)
class Matches:
    """Corresponding pixels of two views, sub-pixel, in the pixels of each ``View`` unless said otherwise."""

    points_a: Float[Tensor, "n 2"]
    points_b: Float[Tensor, "n 2"]
    confidence: Float[Tensor, "n"]
    """Larger is better; the model's own scale."""

    def swapped(self) -> "Matches":
        """The same with view b first."""
        return Matches(self.points_b, self.points_a, self.confidence)

    def where(self, kept: Bool[Tensor, "n"]) -> "Matches":
        """Only some of them."""
        return Matches(self.points_a[kept], self.points_b[kept], self.confidence[kept])

    def cpu(self) -> "Matches":
        """The same in main memory."""
        return Matches(self.points_a.cpu(), self.points_b.cpu(), self.confidence.cpu())


@dataclass(frozen=True, eq=False)
class PairPrediction:
    """What a pair model says of views (i, j): two pointmaps in ONE frame, the camera of view i (DUSt3R, section 3)."""

    points_i: Float[Tensor, "height_i width_i 3"]
    """Point of every pixel of view i, in camera i."""
    points_j: Float[Tensor, "height_j width_j 3"]
    """Point of every pixel of view j, in camera i."""
    confidence_i: Float[Tensor, "height_i width_i"]
    """The model's own confidence, at least 1 for the whole family."""
    confidence_j: Float[Tensor, "height_j width_j"]
    descriptors_i: Float[Tensor, "height_i width_i channels"] | None = None
    """Unit local descriptors, where the model has a matching head (MASt3R)."""
    descriptors_j: Float[Tensor, "height_j width_j channels"] | None = None
    matches: Matches | None = None
    """Correspondences that the model itself found and verified (i is a, j is b), where it works that way; or what its
    descriptors tell, once these have been matched and let go."""
    descriptor_confidence_i: Float[Tensor, "height_i width_i"] | None = None
    """How far a descriptor can be trusted; the model's own definition, positive (MASt3R, section 3.2)."""
    descriptor_confidence_j: Float[Tensor, "height_j width_j"] | None = None


@dataclass(frozen=True, eq=False)
class RelativePose:
    """How camera b stands to camera a, and whether to believe it."""

    b_from_a: Float[Tensor, "4 4"]
    """Rigid transform (float64) that maps points of camera a to camera b; the identity where nothing was found."""
    scale: Literal["metric", "unit"]
    """Length of the translation: metres, or 1 where nobody can know it."""
    reliable: bool
    """Whether rotation and direction of the translation can be trusted; ``reason`` says why not."""
    reason: str
    """One sentence; empty when reliable."""
    method: str
    """What the pose comes from: essential, procrustes, pnp, or the name of a model that regresses it."""
    inliers: int = 0
    """Matches that obey the pose and lie in front of both cameras."""
    matches: int = 0
    """Matches that were looked at."""
    rotation_uncertainty: float = 180.0
    """Standard error of the rotation, degrees."""
    translation_uncertainty: float = 90.0
    """Standard error of the direction of the translation, degrees."""
    intrinsics_a: Float[Tensor, "3 3"] | None = None
    """K in pixels of the original photo a, where the method knows or finds it."""
    intrinsics_b: Float[Tensor, "3 3"] | None = None

    @property
    def rotation_degrees(self) -> float:
        """Angle between the two cameras."""
        return math.degrees(float(rotation_angle(self.b_from_a[:3, :3])))


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points of a scene with colour and confidence."""

    positions: Float[Tensor, "n 3"]
    """World coordinates."""
    colours: UInt8[Tensor, "n 3"]
    """RGB."""
    confidence: Float[Tensor, "n"]
    """The model's own definition; larger is better."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """Sparse points and the pixels that observe them: what bundle adjustment and COLMAP work on."""

    points: Float[Tensor, "n 3"]
    """World coordinates."""
    colours: UInt8[Tensor, "n 3"]
    """RGB."""
    view: Int64[Tensor, "observations"]
    """Index of the observing view, in the order of the scene."""
    pixel: Float[Tensor, "observations 2"]
    """Observed place in the pixels of the ORIGINAL photo."""
    track: Int64[Tensor, "observations"]
    """Index of the observed point."""
