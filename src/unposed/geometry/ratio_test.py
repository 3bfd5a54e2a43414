"""Mutual nearest neighbours of unit descriptors that stand out from the second best (Lowe, IJCV 2004, section 7.1).

Similarities are computed roughly first, in bfloat16 where the processor is fast at it, and only the largest of every
strip of them is kept; strips that may hold an answer, within the proven error of the rough ones, are computed exactly.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unposed.hardware import fast_bfloat16

_ROWS, _COLUMNS = 512, 1024
"""Sides of a block of similarities: it stays in the processor's cache."""
_STRIP = 64
"""So many neighbouring similarities of a row, or of a column, are a strip."""


def ratio_matches(a: Float[Tensor, "n channels"], b: Float[Tensor, "m channels"], ratio: float) -> Int[Tensor, "k 2"]:
    """Index pairs (a, b) of mutual nearest neighbours among unit vectors, best first.

    The nearest of ``b`` must be nearer than ``ratio`` times the distance of the second nearest, and the row of ``a``
    must be the nearest of all to it. Nothing where either side has fewer than two vectors.
    """
    if len(a) < 2 or len(b) < 2:
        return torch.zeros(0, 2, dtype=torch.long)
    rough = _rough(a, b)
    rows = rough.candidates(ratio)
    best, index, second = _exact(a[rows], b, rough.row_strips[rows] >= rough.second[rows, None] - 2 * rough.slack)
    distance, next_distance = ((2 - 2 * each).clamp(min=0).sqrt() for each in (best, second))
    passes = distance < ratio * next_distance
    quality = (distance / next_distance.clamp(min=1e-9))[passes]
    rows, index = rows[passes], index[passes]
    nearest = _exact(b[index], a, rough.column_strips[index] >= best[passes, None] - rough.slack)[1]
    mutual = nearest == rows
    return torch.stack([rows, index], 1)[mutual][quality[mutual].argsort()]


class _Rough(NamedTuple):
    """The largest similarity of every strip, within ``slack``."""

    row_strips: Float[Tensor, "n strips"]
    column_strips: Float[Tensor, "m strips"]
    slack: float

    @property
    def second(self) -> Float[Tensor, "n"]:
        """Of every row, the largest similarity outside the best strip: the second best is at least that."""
        best = self.row_strips.max(1).indices
        return self.row_strips.scatter(1, best[:, None], -torch.inf).amax(1)

    def candidates(self, ratio: float) -> Int[Tensor, "rows"]:
        """Rows that may pass the ratio test with a column whose nearest they may be."""
        best, strip = self.row_strips.max(1)
        squared, next_squared = 2 - 2 * (best + self.slack), 2 - 2 * (self.second - self.slack)
        column_best = _padded(self.column_strips.amax(1), 0, torch.inf).unflatten(0, (-1, _STRIP)).amin(1)
        may_be_mutual = best + 2 * self.slack >= column_best[strip]
        return ((squared <= ratio**2 * next_squared) & may_be_mutual).nonzero()[:, 0]


def _rough(a: Float[Tensor, "n channels"], b: Float[Tensor, "m channels"]) -> _Rough:
    """Similarities by a coarse product of what the vectors have apart from their mean, which rounds less.

    a.b = (a - c).(b - c) + a.c + b.c - c.c
    """
    centre = b.mean(0)
    apart_a, apart_b = a - centre, b - centre
    row_term, column_term = a @ centre, b @ centre - centre.square().sum()
    dtype = torch.bfloat16 if a.dtype == torch.float32 and fast_bfloat16(a.device) else a.dtype
    rough_a, rough_b = apart_a.to(dtype), apart_b.to(dtype)
    columns = rough_b.T.contiguous()
    row_strips, column_strips = [], []
    for part, shift in zip(rough_a.split(_ROWS), row_term.split(_ROWS), strict=True):
        by_row, by_column = [], []
        for column_part, column_shift in zip(columns.split(_COLUMNS, 1), column_term.split(_COLUMNS), strict=True):
            block = (part @ column_part).float()
            block += column_shift
            by_row.append(_padded(block, 1).unflatten(1, (-1, _STRIP)).amax(2) + shift[:, None])
            block += shift[:, None]
            by_column.append(_padded(block, 0).unflatten(0, (-1, _STRIP)).amax(1))
        row_strips.append(torch.cat(by_row, 1))
        column_strips.append(torch.cat(by_column, 1))
    norm_a, norm_b = (float(each.norm(dim=1).max()) for each in (apart_a, apart_b))
    lost_a = float((apart_a - rough_a).norm(dim=1).max())
    lost_b = float((apart_b - rough_b).norm(dim=1).max())
    rounded = norm_a * norm_b * torch.finfo(dtype).eps / 2 + 8 * torch.finfo(a.dtype).eps
    slack = lost_a * (norm_b + lost_b) + lost_b * norm_a + rounded
    return _Rough(torch.cat(row_strips), torch.cat(column_strips).T, slack)


def _padded(values: Tensor, dim: int, filling: float = -torch.inf) -> Tensor:
    """Values of which there are a multiple of a strip along a dimension."""
    missing = -values.shape[dim] % _STRIP
    if missing == 0:
        return values
    shape = list(values.shape)
    shape[dim] = missing
    return torch.cat([values, values.new_full(shape, filling)], dim)


def _exact(
    query: Float[Tensor, "queries channels"],
    reference: Float[Tensor, "references channels"],
    possible: Bool[Tensor, "queries strips"],
) -> tuple[Float[Tensor, "queries"], Int[Tensor, "queries"], Float[Tensor, "queries"]]:
    """Largest similarity of every query among the strips of references that are possible, whose, and the second."""
    best, second = query.new_full((2, len(query)), -torch.inf)
    index = torch.zeros(len(query), dtype=torch.long)
    for k, part in enumerate(reference.split(_STRIP)):
        rows = possible[:, k].nonzero()[:, 0]
        if len(rows) == 0:
            continue
        similarity = query[rows] @ part.T
        highest, where = similarity.max(1)
        runner_up = similarity.scatter_(1, where[:, None], -torch.inf).amax(1)
        before = best[rows]
        second[rows] = torch.maximum(torch.maximum(second[rows], runner_up), torch.minimum(before, highest))
        best[rows] = torch.maximum(before, highest)
        index[rows] = torch.where(highest > before, where + k * _STRIP, index[rows])
    return best, index, second
