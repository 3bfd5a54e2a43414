"""World points behind the pixels of a query photo, from its matches with photos whose cameras are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unposed.align.tracks import consistent_points
from unposed.geometry.cameras import map_pixels
from unposed.views import Camera, Matches, View

_QUANTUM = 16  # pixels of the query closer than 1/16 px are one feature
_MAX_ERROR, _MIN_ANGLE = 4.0, 1.0  # pixels of a view, degrees


@dataclass(frozen=True, eq=False)
class QueryPoints:
    """Pixels of a query with the world points they show; a pixel may come more than once."""

    pixels: Float[Tensor, "n 2"]
    """In the ORIGINAL photo of the query, float64."""
    points: Float[Tensor, "n 3"]
    """World, float64."""
    feature: Int64[Tensor, "n"]
    """Equal where the pixel is the same."""
    seen: tuple[Int64[Tensor, "matches"], ...]
    """The feature of every match, for each reference."""


def query_points(
    query: View,
    references: Sequence[View],
    cameras: Sequence[Camera],
    matches: Sequence[Matches],
    lifted: Sequence[Float[Tensor, "matches 3"]],
) -> QueryPoints:
    """A point for every matched pixel of the query that allows one.

    A pixel that two references or more see is triangulated from them, without what disagrees. Any other takes the
    points that the map itself has where the references see it.

    Args:
        query: the view whose pixels are ``points_a`` of the matches.
        references: the views whose pixels are ``points_b``.
        cameras: of the references' original photos.
        matches: one set a reference.
        lifted: for every match the world point that the map has at the reference's pixel, NaN where it has none.
    """
    pixel_a = torch.cat([found.points_a for found in matches])
    pixel_b = torch.cat([found.points_b for found in matches])
    known = torch.cat(list(lifted)).double()
    reference = torch.repeat_interleave(torch.arange(len(matches)), torch.tensor([len(m.points_a) for m in matches]))
    _, feature = (pixel_a * _QUANTUM).round().long().unique(dim=0, return_inverse=True)
    by_feature = torch.zeros(int(feature.max()) + 1 if len(feature) else 0, 2)
    by_feature[feature] = pixel_a
    found = consistent_points(
        reference, pixel_b, feature, references, cameras, max_error=_MAX_ERROR, min_angle=_MIN_ANGLE
    )
    triangulated = torch.zeros(len(by_feature), dtype=torch.bool)
    triangulated[found.names] = True
    rows = known.isfinite().all(-1) & ~triangulated[feature]
    features = torch.cat([found.names, feature[rows]])
    return QueryPoints(
        pixels=map_pixels(query.original_from_view, by_feature[features].double()),
        points=torch.cat([found.points, known[rows]]),
        feature=features,
        seen=tuple(feature.split([len(m.points_a) for m in matches])),
    )
