"""Fast reciprocal matching of dense descriptors (MASt3R, section 3.3).

From a sparse grid of start pixels, points go back and forth between two images, each time to the nearest descriptor of
the other image, until they come back to where they were: such pairs are mutual nearest neighbours, found without
matching every pixel.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unposed.geometry.neighbours import NeighbourIndex
from unposed.views import Matches, PairPrediction

STRIDE = 8
"""Step of the grid of start pixels."""
ROUNDS = 10
"""Points that still move then are dropped."""

Descriptors = Float[Tensor, "height width channels"]
Confidence = Float[Tensor, "height width"]
Pixels = Int[Tensor, "n"]
"""Linear indices, y * width + x."""


class Paths(NamedTuple):
    """Where start pixels of image a went."""

    start: Pixels
    a: Pixels
    """Where each is now in image a."""
    b: Pixels
    """Its match in image b."""
    fixed: Bool[Tensor, "n"]
    """Whether a and b are each other's nearest neighbour."""


@dataclass
class _Side:
    """Nearest neighbours of one image's pixels in the other, each searched for once."""

    descriptors: Float[Tensor, "pixels channels"]
    other: NeighbourIndex

    def __post_init__(self) -> None:
        self._known = torch.full((len(self.descriptors),), -1, device=self.descriptors.device)

    def partner(self, pixels: Pixels) -> Pixels:
        unknown = pixels[self._known[pixels] < 0].unique()
        if len(unknown):
            self._known[unknown] = self.other.nearest(self.descriptors[unknown])
        return self._known[pixels]


class ReciprocalMatcher:
    """Two images' descriptors, ready to be matched from either side and from any start pixels."""

    def __init__(self, a: Descriptors, b: Descriptors) -> None:
        """Nearest by Euclid: of unit descriptors, the one with the largest inner product. Points in space will do."""
        flat_a, flat_b = a.flatten(0, 1), b.flatten(0, 1)
        self._sizes = (a.shape[0], a.shape[1]), (b.shape[0], b.shape[1])
        self._sides = _Side(flat_a, NeighbourIndex(flat_b)), _Side(flat_b, NeighbourIndex(flat_a))

    def follow(self, start: Pixels, *, from_b: bool = False, rounds: int = ROUNDS) -> Paths:
        """Send start pixels of image a (or b, which then is "a" of the result) back and forth."""
        here, there = self._sides[::-1] if from_b else self._sides
        a, b = start.clone(), torch.full_like(start, -1)
        moving = torch.arange(len(start), device=start.device)
        for _ in range(rounds):
            b[moving] = here.partner(a[moving])
            returned = there.partner(b[moving])
            moved = returned != a[moving]
            a[moving] = returned
            moving = moving[moved]
            if not len(moving):
                break
        fixed = torch.ones_like(start, dtype=torch.bool)
        fixed[moving] = False
        return Paths(start, a, b, fixed)

    def match(self, stride: int = STRIDE, *, from_b: bool = False) -> tuple[Pixels, Pixels]:
        """Mutual nearest neighbours reached from a grid of start pixels: (pixels of a, pixels of b), sorted, unique."""
        height, width = self._sizes[from_b]
        start = start_grid(height, width, stride).to(self._sides[0].descriptors.device)
        paths = self.follow(start, from_b=from_b)
        own, other = paths.a[paths.fixed], paths.b[paths.fixed]
        return _unique(other, own) if from_b else _unique(own, other)

    def match_from(self, start: Pixels, tolerance: float = 0.0, *, from_b: bool = False) -> tuple[Pixels, Pixels]:
        """Matches of given pixels whose way back ends less than ``tolerance`` pixels from them (0: exactly there).

        Returns (pixels of a, pixels of b), sorted, unique; on the side of the start, the start pixels themselves.
        """
        paths = self.follow(start, from_b=from_b, rounds=1)
        width = self._sizes[from_b][1]
        off = (
            torch.stack([paths.a % width - start % width, paths.a // width - start // width], -1).double().norm(dim=-1)
        )
        kept = off < tolerance if tolerance > 0 else off == 0
        own, other = start[kept], paths.b[kept]
        return _unique(other, own) if from_b else _unique(own, other)


def described(
    prediction: PairPrediction, device: torch.device | str = "cpu"
) -> tuple[Descriptors, Descriptors, Confidence, Confidence]:
    """Descriptors of both views of a prediction, and how far they can be trusted, where they are to be matched."""
    di, dj = prediction.descriptors_i, prediction.descriptors_j
    qi, qj = prediction.descriptor_confidence_i, prediction.descriptor_confidence_j
    if di is None or dj is None or qi is None or qj is None:
        raise ValueError("matching by descriptors needs predictions that have them")
    return di.to(device), dj.to(device), qi.to(device), qj.to(device)


def start_grid(height: int, width: int, stride: int) -> Pixels:
    """Linear indices of the pixels at stride // 2, stride // 2 + stride, ... of rows and columns."""
    y, x = torch.arange(stride // 2, height, stride), torch.arange(stride // 2, width, stride)
    return (y[:, None] * width + x).flatten()


def match_both_ways(a: Descriptors, b: Descriptors, qa: Confidence, qb: Confidence, stride: int = STRIDE) -> Matches:
    """Matches found from the grids of both images; a match is as sure as the less sure of its pixels."""
    matcher = ReciprocalMatcher(a, b)
    return union_of_matches([matcher.match(stride), matcher.match(stride, from_b=True)], qa, qb)


def union_of_matches(found: list[tuple[Pixels, Pixels]], qa: Confidence, qb: Confidence) -> Matches:
    """Every match once, as pixels of the views."""
    pixels_a, pixels_b = _unique(*(torch.cat(side) for side in zip(*found, strict=True)))
    confidence = torch.minimum(qa.flatten()[pixels_a], qb.flatten()[pixels_b])
    return Matches(_xy(pixels_a, qa.shape[1]), _xy(pixels_b, qb.shape[1]), confidence)


def match_symmetric(
    forward: PairPrediction,
    backward: PairPrediction,
    stride: int = STRIDE,
    device: torch.device | str = "cpu",
) -> Matches:
    """Matches of both orders of a pair, (i, j) and (j, i), each searched from both images (MASt3R-SfM, section 4).

    The confidence of a match is the geometric mean of its pixels' in the first search that found it.
    """
    sides = []
    for prediction, swapped in ((forward, False), (backward, True)):
        di, dj, qi, qj = described(prediction, device)
        (da, qa), (db, qb) = ((dj, qj), (di, qi)) if swapped else ((di, qi), (dj, qj))
        matcher = ReciprocalMatcher(da, db)
        for from_b in (False, True):
            a, b = matcher.match(stride, from_b=from_b)
            sides.append((a, b, (qa.flatten()[a] * qb.flatten()[b]).sqrt()))
    a, b, confidence = (torch.cat(part) for part in zip(*sides, strict=True))
    key = a * (int(b.max()) + 1 if len(b) else 1) + b
    order = key.sort(stable=True)
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = order.values[1:] != order.values[:-1]
    chosen = order.indices[first]
    widths = forward.confidence_i.shape[1], forward.confidence_j.shape[1]
    return Matches(_xy(a[chosen], widths[0]), _xy(b[chosen], widths[1]), confidence[chosen])


def _unique(a: Pixels, b: Pixels) -> tuple[Pixels, Pixels]:
    """Distinct pairs, sorted by a, then b."""
    first, second = torch.stack([a, b]).unique(dim=1) if len(a) else (a, b)
    return first, second


def _xy(pixels: Pixels, width: int) -> Float[Tensor, "n 2"]:
    return torch.stack([pixels % width, pixels // width], -1).float()
