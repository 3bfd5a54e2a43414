"""What every pair network does around its forward: views to tensors, batches of one shape, results to the CPU."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.views import Pair, PairPrediction, View

Maps = dict[str, Tensor]
"""Per-pixel outputs of a batch of views: ``points``, ``confidence`` and, with a matching head, ``descriptors`` and
``descriptor_confidence``."""

Features = dict[str, Tensor]
"""What an encoder says of views, batched, or of one view: at least its ``tokens``."""
Item = TypeVar("Item")

_PIXELS_PER_BATCH = {"cpu": 2 * 512 * 384, "cuda": 32 * 512 * 384}


def image_batch(views: Sequence[View], device: torch.device) -> Float[Tensor, "views 3 height width"]:
    """Pixels of views of one size, in [-1, 1]."""
    pixels = torch.stack([view.image for view in views]).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def encode_by_size(
    encode: Callable[[Float[Tensor, "views 3 height width"]], Features], views: Sequence[View], device: torch.device
) -> list[Features]:
    """Encode every view once, views of one size together; the results in the order of ``views``."""
    features: list[Features] = [{} for _ in views]
    for batch in batches(range(len(views)), lambda i: views[i].size, lambda i: _pixels(views[i]), device):
        encoded = encode(image_batch([views[i] for i in batch], device))
        for k, i in enumerate(batch):
            features[i] = {name: values[k] for name, values in encoded.items()}
    return features


Size = tuple[int, int]
"""(height, width) of a view."""
Decoded = TypeVar("Decoded")


def decode_in_batches(
    decode: Callable[[Features, Features, Size, Size], Decoded],
    views: Sequence[View],
    features: Sequence[Features],
    pairs: Sequence[Pair],
    device: torch.device,
) -> Iterator[tuple[list[Pair], Decoded]]:
    """Decode pairs whose views have the same two sizes together, in batches of bounded size.

    ``decode(features_i, features_j, size_i, size_j)`` gets stacked features; what it gives for a batch of pairs comes
    out with them.
    """

    def sizes(pair: Pair) -> tuple[Size, Size]:
        return views[pair[0]].size, views[pair[1]].size

    def pixels(pair: Pair) -> int:
        return _pixels(views[pair[0]]) + _pixels(views[pair[1]])

    for batch in batches(pairs, sizes, pixels, device):
        stacked_i, stacked_j = _stack(features, [i for i, _ in batch]), _stack(features, [j for _, j in batch])
        yield batch, decode(stacked_i, stacked_j, *sizes(batch[0]))


def decode_by_shape(
    decode: Callable[[Features, Features, Size, Size], tuple[Maps, Maps]],
    views: Sequence[View],
    features: Sequence[Features],
    pairs: Sequence[Pair],
    device: torch.device,
) -> Iterator[tuple[Pair, PairPrediction]]:
    """Predictions of pairs, one by one, from maps that are decoded as ``decode_in_batches`` does."""
    for batch, maps in decode_in_batches(decode, views, features, pairs, device):
        maps_i, maps_j = (_to_cpu(side) for side in maps)
        for k, pair in enumerate(batch):
            yield pair, _prediction({n: m[k] for n, m in maps_i.items()}, {n: m[k] for n, m in maps_j.items()})


def _stack(features: Sequence[Features], chosen: Sequence[int]) -> Features:
    return {name: torch.stack([features[i][name] for i in chosen]) for name in features[chosen[0]]}


def _prediction(maps_i: Maps, maps_j: Maps) -> PairPrediction:
    return PairPrediction(
        points_i=maps_i["points"],
        points_j=maps_j["points"],
        confidence_i=maps_i["confidence"],
        confidence_j=maps_j["confidence"],
        descriptors_i=maps_i.get("descriptors"),
        descriptors_j=maps_j.get("descriptors"),
        descriptor_confidence_i=maps_i.get("descriptor_confidence"),
        descriptor_confidence_j=maps_j.get("descriptor_confidence"),
    )


def batches(
    items: Sequence[Item], key: Callable[[Item], Any], cost: Callable[[Item], int], device: torch.device
) -> Iterator[list[Item]]:
    """Items of one key together, as many as the device's budget of pixels takes, at least one."""
    groups: dict[Any, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    budget = _PIXELS_PER_BATCH.get(device.type, _PIXELS_PER_BATCH["cpu"])
    for group in groups.values():
        step = max(1, budget // cost(group[0]))
        for start in range(0, len(group), step):
            yield group[start : start + step]


def _pixels(view: View) -> int:
    return view.size[0] * view.size[1]


def _to_cpu(maps: Maps) -> Maps:
    return {name: value.float().cpu() for name, value in maps.items()}
