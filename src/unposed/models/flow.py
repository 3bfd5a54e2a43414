"""What stereo and optical flow models promise.

Displacements are in pixels. Disparity d is positive: pixel (x, y) of the left photo is (x - d, y) of the right one; 0
is unknown. Flow is (x, y): pixel p of picture a is p + flow of picture b. Confidence is 1 / (1 + e) with e the error in
pixels that the model expects of itself, so it has one meaning for all models: 0.5 is a pixel, 0 knows nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float, UInt8
from torch import Tensor

from unposed.views import Pair

Picture = UInt8[Tensor, "height width 3"]
"""RGB."""


@dataclass(frozen=True, eq=False)
class DisparityPrediction:
    """What a stereo model says of every pixel of the left picture; on the CPU."""

    disparity: Float[Tensor, "height width"]
    confidence: Float[Tensor, "height width"]


@dataclass(frozen=True, eq=False)
class FlowPrediction:
    """What a flow model says of every pixel of picture a; on the CPU."""

    flow: Float[Tensor, "height width 2"]
    confidence: Float[Tensor, "height width"]


class StereoModel(Protocol):
    """Tells the disparity of a rectified pair."""

    name: str
    """Short name, for people and files."""

    def estimate_disparity(self, left: Picture, right: Picture, largest: float) -> DisparityPrediction:
        """Disparity of the left picture; both have one size.

        ``largest`` is the disparity that is to be expected at most; models that need no range do not look at it.
        """
        ...


class FlowModel(Protocol):
    """Tells where the pixels of one picture are in another."""

    name: str
    """Short name, for people and files."""

    def estimate_flow(
        self, pictures: Sequence[Picture], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, FlowPrediction]]:
        """Flow from a to b for ordered pairs (a, b) of indices into ``pictures``, in the order of the pairs.

        All pictures have one size. The model sees all pairs, so it may keep what two of them share; neighbours in
        ``pairs`` should share a picture.
        """
        ...
