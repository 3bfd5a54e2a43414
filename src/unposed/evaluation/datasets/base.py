"""What every benchmark reader gives: frames in sequences, pairs with a relative pose, queries against references.

Pixels are read when asked for. Frames: camera axes x right, y down, z forward; lengths in the data set's own unit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from unposed.io.photos import Photo
from unposed.views import Camera


class Landmarks(NamedTuple):
    """World points and where a photo sees them."""

    pixels: Float[Tensor, "n 2"]
    points: Float[Tensor, "n 3"]


@dataclass(frozen=True, eq=False)
class Frame:
    """A photo with what is known about it."""

    photo: Photo
    camera: Camera | None = None
    """True camera in the pixels of the photo; None where the data set has none (or an invalid one). Its intrinsics are
    nan where only the pose is known."""
    depth: Callable[[], Float[Tensor, "height width"]] | None = None
    """Reads the true depth along z at the size in which the data set stores it; 0 where unknown."""
    mask: Callable[[], Float[Tensor, "height width"]] | None = None
    """Reads the data set's own mask (what it covers is said by the reader); None where it has none."""
    time: float | None = None
    """Seconds, where the data set has a clock."""
    landmarks: Callable[[], Landmarks] | None = None
    """Reads the points whose place in this photo the data set knows, sparse (from matching) or dense (from a scan)."""
    intrinsics: Float[Tensor, "3 3"] | None = None
    """K in the pixels of the photo where it is known and the pose is not."""


@dataclass(frozen=True, eq=False)
class FrameSequence:
    """Frames of one scene, in order; true cameras share one world frame."""

    name: str
    frames: tuple[Frame, ...]
    metric: bool = True
    """Whether lengths are metres."""
    points: Callable[[], Float[Tensor, "n 3"]] | None = None
    """Reads the reference point cloud in the same world frame, where there is one."""


@dataclass(frozen=True, eq=False)
class PosedPair:
    """Two frames with their true relative pose."""

    name: str
    a: Frame
    b: Frame
    b_from_a: Float[Tensor, "4 4"]
    """Camera a to camera b."""
    overlap: float | None = None
    """Share of view a that view b sees, where the benchmark bins by it."""


@dataclass(frozen=True, eq=False)
class Relocalisation:
    """Queries to be placed in a map of posed references."""

    name: str
    references: tuple[Frame, ...]
    queries: tuple[Frame, ...]
    retrieved: Mapping[str, tuple[str, ...]] | None = None
    """Names of the references to use for each query, best first, where the benchmark publishes them."""


@dataclass(frozen=True, eq=False)
class NovelViews:
    """Known views of a scene and the views that are to be made of them."""

    name: str
    context: tuple[Frame, ...]
    targets: tuple[Frame, ...]
    overlap: float | None = None
    """Share of the first context view that the second sees, where the benchmark bins by it."""
