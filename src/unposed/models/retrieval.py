"""Image retrieval: which photos of a collection show the same things, found without looking at every pair.

A retriever keeps little of every photo (tens to hundreds of kilobytes) and compares those descriptions with ASMK
(``models/asmk.py``). For any model there is one on SIFT descriptors, whose codebook ships with the package; a released
MASt3R retrieval file (MASt3R-SfM, 3DV 2025, section 4.1) makes one on the tokens of the model's own encoder.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.io.checkpoints import read_checkpoint
from unposed.io.codebooks import read_codebook
from unposed.models import asmk, sift
from unposed.models.base import PairModel
from unposed.models.retrieval_head import RetrievalHead
from unposed.views import View

RELEASED_SUFFIX = "_retrieval_trainingfree.pth"
"""What released retrieval weights are called, after the name of the network they are for."""
QUERY_WORDS = 5
"""Codewords a feature of a query goes to; a feature of the database goes to one."""
_VIEWS_AT_ONCE = 16


class Retriever(Protocol):
    """Tells which photos are alike."""

    def describe(self, views: Sequence[View], features: Sequence[Any] | None = None) -> list[Any]:
        """What to keep of every view to compare it with others.

        ``features`` are those that the model's ``encode`` gave for the views, where the caller has them already;
        without them views are looked at a few at a time, and nothing but the descriptions stays in memory.
        """
        ...

    def similarity(self, queries: Sequence[Any], database: Sequence[Any]) -> Float[Tensor, "queries database"]:
        """How alike views are, from 0 to 1, larger is more alike. Not symmetric; a view with itself is below 1."""
        ...


def find_retriever(model: PairModel, weights: str | Path | None = None) -> Retriever:
    """The retriever to choose pairs for a model.

    Args:
        model: the model whose pairs are to be chosen.
        weights: released retrieval weights of the model's encoder, with their codebook beside them. Without them the
            retriever works on SIFT descriptors, whatever the model.

    Raises:
        UserError: ``weights`` or their codebook are missing, damaged, or of another encoder.
    """
    if weights is not None:
        return TokenRetriever.from_files(model, weights)
    return KeypointRetriever.shipped()


def released_weights(checkpoint: str | Path) -> Path | None:
    """The retrieval weights that lie beside a released network under their released name, if they do."""
    checkpoint = Path(checkpoint)
    beside = checkpoint.with_name(checkpoint.stem + RELEASED_SUFFIX)
    return beside if beside.is_file() else None


@dataclass(frozen=True, eq=False)
class Description:
    """What is kept of a view."""

    query: asmk.Aggregated
    """Its features at their nearest codewords, ``QUERY_WORDS`` of each."""
    database: asmk.Aggregated
    """Its features at their nearest codeword."""


class _AsmkRetriever:
    """Descriptions by a codebook, compared by ASMK."""

    def __init__(self, centroids: Float[Tensor, "words dim"], device: torch.device | str = "cpu") -> None:
        """Codewords are searched on ``device``, where a large codebook has its cost; all else is on the CPU."""
        self.centroids = centroids
        self._searched = centroids.to(device)

    def aggregate(self, features: Float[Tensor, "n dim"]) -> Description:
        """Describe a view by its local features."""
        nearest = asmk.nearest_words(features.to(self._searched.device), self._searched, QUERY_WORDS).cpu()
        query = asmk.aggregate(features, self.centroids, nearest)
        return Description(query, asmk.aggregate(features, self.centroids, nearest[:, :1]))

    def similarity(
        self, queries: Sequence[Description], database: Sequence[Description]
    ) -> Float[Tensor, "queries database"]:
        """ASMK* of the descriptions."""
        return asmk.similarity([d.query for d in queries], [d.database for d in database])


class KeypointRetriever(_AsmkRetriever):
    """Retrieval by the strongest SIFT descriptors of the views, whitened; needs no network."""

    FEATURES = 500
    """Of a view, the strongest."""

    def __init__(
        self, mean: Float[Tensor, "1 128"], whitening: Float[Tensor, "128 dim"], centroids: Float[Tensor, "words dim"]
    ) -> None:
        super().__init__(centroids)
        self.mean, self.whitening = mean, whitening

    @classmethod
    def shipped(cls) -> "KeypointRetriever":
        """With the codebook of the package (``train/codebook.py`` made it)."""
        path = Path(str(files("unposed") / "weights" / "retrieval.safetensors"))
        tensors = {name: tensor.float() for name, tensor in read_checkpoint(path).tensors.items()}
        return cls(tensors["mean"], tensors["whitening"], tensors["centroids"])

    def describe(self, views: Sequence[View], features: Sequence[Any] | None = None) -> list[Description]:
        """Descriptions by the keypoints among the features (those of ``classic`` and ``mini``), or by new ones."""
        if features is not None and all(isinstance(each, sift.Keypoints) for each in features):
            return [self._describe(keypoints) for keypoints in features]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return list(pool.map(lambda view: self._describe(sift.detect(view.image, self.FEATURES)), views))

    def local_features(self, keypoints: sift.Keypoints) -> Float[Tensor, "n dim"]:
        """Whitened descriptors of the strongest keypoints."""
        return (keypoints.descriptors[: self.FEATURES] - self.mean) @ self.whitening

    def _describe(self, keypoints: sift.Keypoints) -> Description:
        return self.aggregate(self.local_features(keypoints))


class TokenRetriever(_AsmkRetriever):
    """Retrieval by the strongest encoder tokens of a network of the family, with a released head and codebook."""

    def __init__(self, model: PairModel, head: RetrievalHead, centroids: Float[Tensor, "words dim"]) -> None:
        super().__init__(centroids, getattr(model, "device", "cpu"))
        self.model, self.head = model, head

    @classmethod
    def from_files(cls, model: PairModel, weights: str | Path) -> "TokenRetriever":
        """Read released weights, ``*_retrieval_trainingfree.pth`` with ``*_retrieval_codebook.pkl`` beside them.

        Raises:
            UserError: a file is missing, damaged, or does not fit the other.
        """
        weights = Path(weights)
        checkpoint = read_checkpoint(weights)
        arguments = checkpoint.extra.get("args")
        if not isinstance(arguments, dict) or "nfeat" not in arguments:
            raise UserError(f"{weights} holds no retrieval head; give a released *{RELEASED_SUFFIX}.")
        head = RetrievalHead.from_state(arguments, checkpoint.tensors, weights)
        centroids = read_codebook(weights.with_name(weights.stem.rpartition("_")[0] + "_codebook.pkl"))
        words = _count(arguments.get("nclusters", len(centroids)))
        if centroids.shape != (words, head.width):
            raise UserError(f"The codebook beside {weights} has another size than the weights; get both again.")
        return cls(model, head.eval().requires_grad_(False), centroids)

    @torch.no_grad()
    def describe(self, views: Sequence[View], features: Sequence[Any] | None = None) -> list[Description]:
        """Descriptions by the ``tokens`` of the features."""
        encoded = _encoded_in_parts(self.model, views) if features is None else iter(features)
        return [self._describe(each) for each in encoded]

    def _describe(self, features: Any) -> Description:
        tokens = features.get("tokens") if isinstance(features, Mapping) else None
        if tokens is None or tokens.shape[-1] != self.head.token_width:
            raise UserError(
                f"The retrieval weights are not for the encoder of {self.model.name}; give those of its release."
            )
        local, strength = self.head(tokens[None].float().cpu())
        return self.aggregate(self.head.strongest(local, strength)[0][0].float())


def _encoded_in_parts(model: PairModel, views: Sequence[View]) -> Iterator[Any]:
    for start in range(0, len(views), _VIEWS_AT_ONCE):
        yield from model.encode(views[start : start + _VIEWS_AT_ONCE])


def _count(value: Any) -> int:
    """A number, or text like ``64k``, where k is 1024."""
    text = str(value).lower()
    number = text.removesuffix("k")
    if not number.isdecimal():
        raise UserError(f"The retrieval weights name an impossible number of codewords, {value!r}; get them again.")
    return int(number) * (1024 if text.endswith("k") else 1)
