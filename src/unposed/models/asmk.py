"""ASMK: how alike two images are, from their local features alone, through a codebook and an inverted index.

Tolias, Avrithis, Jegou: Image search with selective match kernels: aggregation across single and multiple images,
IJCV 2016. Every local feature goes to its nearest codewords; what the features of an image leave over at one codeword
is summed to one vector and, in the usual variant ASMK*, kept as signs. Two images are compared codeword by codeword.
There is no weighting by inverse document frequency, as in MASt3R-SfM (3DV 2025, section 4.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

_WORD_BITS = 32
"""Signs are packed into words of so many bits; the bits that fill up the last word count as equal."""
_FEATURES_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Aggregated:
    """An image as a bag of codewords, each with what its features leave over there."""

    words: NDArray[np.int32]
    """The codewords of the image, sorted, each once."""
    vectors: NDArray[np.uint8] | NDArray[np.float32]
    """A row a codeword: signs packed into bytes, most significant bit first, or a unit vector."""


def nearest_words(
    features: Float[Tensor, "n dim"], centroids: Float[Tensor, "words dim"], count: int
) -> Int[Tensor, "n count"]:
    """The codewords nearest to every feature (L2, exact), nearest first."""
    half_norm = centroids.square().sum(1) / 2
    found = [
        (part @ centroids.T - half_norm).topk(min(count, len(centroids)), dim=1).indices
        for part in features.split(_FEATURES_AT_ONCE)
    ]
    return torch.cat(found) if found else torch.zeros(0, count, dtype=torch.long)


def aggregate(
    features: Float[Tensor, "n dim"],
    centroids: Float[Tensor, "words dim"],
    assigned: Int[Tensor, "n count"],
    binary: bool = True,
) -> Aggregated:
    """Sum the residuals at every codeword that features are assigned to; keep signs or, if not binary, unit vectors."""
    words, slot = torch.unique(assigned.flatten(), return_inverse=True)
    residuals = (features[:, None] - centroids[assigned]).flatten(0, 1)
    sums = features.new_zeros(len(words), features.shape[1]).index_add_(0, slot, residuals)
    kept = pack_signs(sums) if binary else torch.nn.functional.normalize(sums, dim=1).numpy()
    return Aggregated(words.numpy().astype(np.int32), kept)


def pack_signs(vectors: Float[Tensor, "n dim"]) -> NDArray[np.uint8]:
    """One bit a component, set where it is positive, filled up with zeros to whole words of 32 bits."""
    bits = (vectors > 0).numpy()
    return np.packbits(np.pad(bits, [(0, 0), (0, -bits.shape[1] % _WORD_BITS)]), axis=1)


class InvertedIndex:
    """Images by codeword, to be asked for those that resemble a query."""

    def __init__(self, database: Sequence[Aggregated], threshold: float = 0.0, power: float = 3.0) -> None:
        """Index images. The similarity u of two residuals counts as u ** ``power`` if it is at least ``threshold``."""
        self.threshold, self.power = threshold, power
        self.distinct_words = np.array([len(image.words) for image in database])
        words = np.concatenate([image.words for image in database])
        order = np.argsort(words, kind="stable")
        self._words, first = np.unique(words[order], return_index=True)
        self._first = np.append(first, len(words))
        self._image = np.repeat(np.arange(len(database)), self.distinct_words)[order]
        self._vectors = _comparable(np.concatenate([image.vectors for image in database])[order])

    def scores(self, query: Aggregated) -> NDArray[np.float32]:
        """Similarity of one image to every image of the database, from 0 to 1.

        The kernel of the common codewords, divided by the square root of the number of codewords on either side.
        """
        images = len(self.distinct_words)
        place = np.searchsorted(self._words, query.words).clip(max=max(len(self._words) - 1, 0))
        known = self._words[place] == query.words if len(self._words) else np.zeros(len(query.words), bool)
        first, last = self._first[place[known]], self._first[place[known] + 1]
        count = last - first
        rows = np.repeat(first - np.append(0, count.cumsum()[:-1]), count) + np.arange(count.sum())
        kernel = self._kernel(_comparable(query.vectors)[known], np.repeat(np.arange(len(count)), count), rows)
        total = np.bincount(self._image[rows], kernel, images)
        return (total / np.sqrt(np.maximum(self.distinct_words * len(query.words), 1))).astype(np.float32)

    def _kernel(self, query: NDArray, query_rows: NDArray, rows: NDArray) -> NDArray[np.float64]:
        """The selective kernel of row pairs of the query and of the database."""
        mine, others = query[query_rows], self._vectors[rows]
        if query.dtype == np.float32:
            likeness = np.einsum("nd,nd->n", mine, others).astype(np.float64)
            return np.where(likeness >= self.threshold, likeness, 0) ** self.power
        width = 8 * query.dtype.itemsize * query.shape[1]
        likeness = 1 - 2 * np.arange(width + 1) / width
        table = np.where(likeness >= self.threshold, likeness, 0) ** self.power
        return table[np.bitwise_count(mine ^ others).sum(1, dtype=np.int64)]


def similarity(
    queries: Sequence[Aggregated], database: Sequence[Aggregated], threshold: float = 0.0, power: float = 3.0
) -> Float[Tensor, "queries database"]:
    """How alike images are; not symmetric where the two sides were assigned to different numbers of codewords."""
    if not queries or not database:
        return torch.zeros(len(queries), len(database))
    index = InvertedIndex(database, threshold, power)
    return torch.from_numpy(np.stack([index.scores(query) for query in queries]))


def _comparable(vectors: NDArray) -> NDArray:
    """Packed signs as the widest integers that fit, so that they are compared many bits at a time."""
    if vectors.dtype != np.uint8:
        return vectors
    return np.ascontiguousarray(vectors).view(np.uint64 if vectors.shape[1] % 8 == 0 else np.uint32)
