"""What a model promises: small protocols that tasks ask for. A model knows tensors; tasks know photos."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from unposed.io.photos import ImageRule
from unposed.views import Pair, PairPrediction, View


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
