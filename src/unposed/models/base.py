"""What a model promises: small protocols that tasks ask for. A model knows tensors; tasks know photos."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from unposed.io.photos import ImageRule
from unposed.views import Matches, Pair, PairPrediction, View


@dataclass(frozen=True)
class FocalEstimate:
    """The focal length of a view, and how well it is known."""

    focal: float
    """In pixels of the view."""
    spread: float
    """How far it may be off, as a share of itself (one standard deviation)."""
    votes: int
    """Pairs of views that had a say; with 0 of them it is EXIF's, or a guess."""


@runtime_checkable
class FocalModel(Protocol):
    """Tells the focal lengths of views that overlap without depth or poses."""

    def estimate_focals(self, views: Sequence[View], pairs: Sequence[Pair]) -> list[FocalEstimate]:
        """Focal length of each view, in order, from what the pairs say; EXIF may help but does not decide."""
        ...


@runtime_checkable
class PairModel(Protocol):
    """Two views in, two pointmaps in the frame of the first out; encodes once per view, decodes per pair."""

    name: str
    """Short name, as in the registry."""
    image_rule: ImageRule
    """How a photo becomes a view for this model."""
    metric: bool
    """Whether predicted lengths are metres."""

    def encode(self, views: Sequence[View]) -> list[Any]:
        """Features of each view, in order; batched by size inside. What a feature is, is the model's business."""
        ...

    def decode(
        self, views: Sequence[View], features: Sequence[Any], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairPrediction]]:
        """Predictions for ordered pairs of indices into ``views``, as they become ready and not necessarily in order.

        The model sees all pairs that are still to do, so it may batch by shape, share work between (i, j) and (j, i),
        or agree on one focal length first. Results are on the CPU, in float32.
        """
        ...


@dataclass(frozen=True, eq=False)
class PairPose:
    """What a model that regresses poses says of views (i, j): two predictions that need not be each other's inverse."""

    j_from_i: Float[Tensor, "4 4"]
    """Maps points of camera i to camera j (float64); the length of its translation means nothing."""
    i_from_j: Float[Tensor, "4 4"]
    """Maps points of camera j to camera i; the one that the model is known by."""


@runtime_checkable
class PoseModel(Protocol):
    """Two views in, their relative pose out, without any point; encodes once per view, decodes per pair."""

    name: str
    """Short name, as in the registry."""
    image_rule: ImageRule
    """How a photo becomes a view for this model."""

    def encode(self, views: Sequence[View]) -> list[Any]:
        """Features of each view, in order; batched by size inside."""
        ...

    def relative_poses(
        self, views: Sequence[View], features: Sequence[Any], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairPose]]:
        """Poses of ordered pairs of indices into ``views``, as they become ready and not necessarily in order."""
        ...


@dataclass(frozen=True, eq=False)
class PairMatches:
    """What a model says of two views where only their matches are asked for."""

    matches: Matches
    """In pixels of the views."""
    focals: tuple[float, float]
    """Focal lengths of both views in their pixels, as the model has them."""
    verified: bool
    """Whether the model has checked the matches against one geometry; they are then sub-pixel."""


@runtime_checkable
class MatchModel(Protocol):
    """Matches views without working out their depth."""

    def match_pairs(
        self, views: Sequence[View], features: Sequence[Any], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairMatches]]:
        """Matches of pairs of indices into ``views``, in order; those that the predictions of ``decode`` would carry.

        ``features`` are those of ``encode``, needed only of the views that are in pairs.
        """
        ...


@dataclass(frozen=True, eq=False)
class MonocularPrediction:
    """What a model says of one view by itself; everything is on the CPU."""

    points: Float[Tensor, "height width 3"]
    """In the camera frame of the view; every point is on the ray of its pixel."""
    depth: Float[Tensor, "height width"]
    """Along the camera's z axis; without meaning where ``mask`` is False."""
    mask: Bool[Tensor, "height width"]
    """Pixels that have a depth; sky has none."""
    intrinsics: Float[Tensor, "3 3"]
    """K in pixels of the view, estimated or as it was given."""
    normals: Float[Tensor, "height width 3"] | None
    """Unit surface normals in the camera frame, towards the camera; None where the model has none."""
    metric: bool
    """Whether lengths are metres; else they are up to one scale."""


@runtime_checkable
class MonocularModel(Protocol):
    """One view in, its geometry and its camera out."""

    name: str
    """Short name, as in the registry."""
    image_rule: ImageRule
    """How a photo becomes a view for this model."""

    def infer(
        self,
        views: Sequence[View],
        *,
        intrinsics: Sequence[Float[Tensor, "3 3"] | None] | None = None,
        normals: bool = True,
    ) -> list[MonocularPrediction]:
        """Geometry of each view by itself, in order.

        ``intrinsics`` holds K of the views that is known, in their pixels, and None where it is not. ``normals`` says
        whether they are wanted, where the model can tell them.
        """
        ...


@runtime_checkable
class SweepModel(Protocol):
    """A model whose depth is plane sweep: it is worked out anew once the cameras of all views are refined."""

    def expected_depth(self, view: View) -> Float[Tensor, "rows columns"]:
        """What it expects of a view where nothing can be matched: log-depth up to a constant, at any resolution."""
        ...
