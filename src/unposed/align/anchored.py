"""Matches between canonical views as flat tensors: what sparse alignment works on (MASt3R-SfM, section 3.4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unposed.align.canonical import CanonicalView
from unposed.views import Matches, Pair


@dataclass(frozen=True, eq=False)
class AnchoredMatches:
    """All matches of all pairs, each pair once, and the anchors that their depths hang on.

    A match has two sides; side 0 is in the first view of its pair. Anchors of all views are numbered through.
    """

    sizes: Int[Tensor, "views 2"]
    """(width, height) of every view."""
    base_focal: Float[Tensor, "views"]
    """Focal of every canonical view, pixels: depths and offsets were measured with it."""
    core_depth: Float[Tensor, "anchors"]
    """z-depth of every anchor in its canonical view; 1 for anchors without a use, which no match has."""
    view_of_anchor: Int[Tensor, "anchors"]
    pairs: Int[Tensor, "pairs 2"]
    pair: Int[Tensor, "matches"]
    """Row of ``pairs`` of every match."""
    pixel: Float[Tensor, "matches 2 2"]
    """(match, side, x or y)."""
    anchor: Int[Tensor, "matches 2"]
    offset: Float[Tensor, "matches 2"]
    """Ratio of the depth of a match's pixel to its anchor's."""
    confidence: Float[Tensor, "matches"]

    @property
    def view(self) -> Int[Tensor, "matches 2"]:
        """View of either side of every match."""
        return self.pairs[self.pair]

    @property
    def typical_depth(self) -> Float[Tensor, "views"]:
        """Median (the lower one) of every view's anchor depths."""
        return torch.stack([depth.median() for depth in self.core_depth.split(self.anchors_per_view)])

    @property
    def anchors_per_view(self) -> list[int]:
        """How many anchors every view has."""
        return torch.bincount(self.view_of_anchor, minlength=len(self.sizes)).tolist()

    @property
    def counts(self) -> Int[Tensor, "views views"]:
        """How many matches every two views have."""
        table = torch.zeros(len(self.sizes), len(self.sizes), dtype=torch.int64)
        number = torch.bincount(self.pair, minlength=len(self.pairs))
        table.index_put_((self.pairs[:, 0], self.pairs[:, 1]), number, accumulate=True)
        return table + table.T

    def of_pairs(self, chosen: Bool[Tensor, "pairs"]) -> "AnchoredMatches":
        """The matches of some pairs only; views and anchors stay."""
        kept = chosen[self.pair]
        number = chosen.long().cumsum(0) - 1
        return AnchoredMatches(
            self.sizes,
            self.base_focal,
            self.core_depth,
            self.view_of_anchor,
            self.pairs[chosen],
            number[self.pair[kept]],
            self.pixel[kept],
            self.anchor[kept],
            self.offset[kept],
            self.confidence[kept],
        )


def anchor_matches(
    canonical: Sequence[CanonicalView], base_focal: Float[Tensor, "views"], matches: Mapping[Pair, Matches]
) -> AnchoredMatches:
    """Hang every match (view pixels) on the anchors of its two views.

    Matches on pixels or anchors without a usable depth are dropped, as are those without confidence.
    """
    first = torch.tensor([0] + [view.anchor_depth.numel() for view in canonical]).cumsum(0)
    usable = torch.cat([view.usable_anchors.flatten() for view in canonical])
    core = torch.cat([view.anchor_depth.flatten() for view in canonical])
    rows = [_rows_of_pair(canonical, first, pair, found) for pair, found in matches.items()]
    pixel, anchor, offset, confidence = (torch.cat(part) for part in zip(*rows, strict=True))
    number = torch.repeat_interleave(torch.tensor([len(row[0]) for row in rows]))
    kept = (usable[anchor] & offset.isfinite() & (offset > 0)).all(1) & (confidence > 0)
    return AnchoredMatches(
        torch.tensor([[view.points.shape[1], view.points.shape[0]] for view in canonical]),
        base_focal,
        torch.where(usable, core, torch.ones_like(core)),
        torch.repeat_interleave(first.diff()),
        torch.tensor(list(matches)).reshape(-1, 2),
        number[kept],
        pixel[kept],
        anchor[kept],
        offset[kept],
        confidence[kept],
    )


def _rows_of_pair(
    canonical: Sequence[CanonicalView], first: Tensor, pair: Pair, matches: Matches
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pixel = torch.stack([matches.points_a, matches.points_b], 1).float()
    anchors, offsets = [], []
    for side, view in enumerate(pair):
        height, width = canonical[view].confidence.shape
        limit = torch.tensor([width - 1, height - 1])
        nearest = pixel[:, side].round().long().clamp(min=torch.zeros(2, dtype=torch.int64), max=limit)
        anchor, offset = canonical[view].anchors_of(nearest)
        anchors.append(first[view] + anchor)
        offsets.append(offset)
    return pixel, torch.stack(anchors, 1), torch.stack(offsets, 1), matches.confidence.float()
