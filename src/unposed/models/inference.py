"""Pairs through a pair model: every view is encoded once, however many pairs it is in."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from unposed.models.base import PairModel
from unposed.views import Pair, PairPrediction, View


def device_of(model: PairModel) -> torch.device:
    """Where a model computes; the CPU for those that have no choice."""
    return torch.device(getattr(model, "device", "cpu"))


def encode_views(model: PairModel, views: Sequence[View], pairs: Sequence[Pair]) -> list[Any]:
    """Features of all views that are in a pair, in the places of the views; None for the others."""
    needed = sorted({index for pair in pairs for index in pair})
    features: list[Any] = [None] * len(views)
    for index, encoded in zip(needed, model.encode([views[k] for k in needed]), strict=True):
        features[index] = encoded
    return features


def predict_pairs(
    model: PairModel, views: Sequence[View], pairs: Sequence[Pair], features: Sequence[Any] | None = None
) -> Iterator[tuple[Pair, PairPrediction]]:
    """Predictions as they become ready, not necessarily in order; views that are in no pair are not encoded.

    ``features`` are those of all views, from the model's ``encode``, where the caller has them already.
    """
    yield from model.decode(views, encode_views(model, views, pairs) if features is None else features, pairs)
