"""Errors of disparity and flow maps: per batch, and per dataset weighted by pixels.

Definitions as in the evaluation of CroCo v2 (section 4): errors are Euclidean lengths in pixels, ``bad@t`` is the
percentage of known pixels with an error above t. Pixels of unknown truth are infinite in the data.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Map = Float[Tensor, "batch channels height width"]

_SPEEDS = {"s0-10": (0.0, 10.0), "s10-40": (10.0, 40.0), "s40+": (40.0, float("inf"))}


def batch_metrics(prediction: Map, truth: Map, names: Sequence[str]) -> dict[str, float]:
    """Mean over the pictures of a batch of ``avgerr``, ``L1err``, ``EPE``, ``rmse``, ``bad@T``."""
    per_picture = []
    for predicted, true in zip(prediction, truth, strict=True):
        known = true.isfinite().all(0)
        difference = (predicted - true)[:, known]
        per_picture.append([_metric(name, difference) for name in names])
    return dict(zip(names, torch.tensor(per_picture).mean(0).tolist(), strict=True))


def _metric(name: str, difference: Float[Tensor, "channels pixels"]) -> float:
    length = difference.norm(dim=0)
    if name in ("avgerr", "EPE"):
        return float(length.mean())
    if name == "L1err":
        return float(difference.abs().sum(0).mean())
    if name == "rmse":
        return float(length.square().mean().sqrt())
    return 100 * float((length > float(name.removeprefix("bad@"))).float().mean())


class DatasetMetrics:
    """Means over all known pixels of a dataset, pictures added one by one.

    Names: ``L1err``, ``EPE``, ``bad@T``, and the ``EPE`` of pixels by the speed of their (mean) true flow in pixels:
    ``s0-10``, ``s10-40``, ``s40+``.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, prediction: Map, truth: Map) -> None:
        """Add pictures. Truth at twice the size (Spring): the error of a pixel is that of its best sub-pixel."""
        if truth.shape[-2:] != prediction.shape[-2:]:
            candidates = [truth[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
        else:
            candidates = [truth]
        known = torch.stack([truth.isfinite().all(1) for truth in candidates])
        some_known = known.any(0)
        speed = _mean_flow(candidates, known).norm(dim=1)
        for name in self._names:
            order = 1 if name == "L1err" else 2
            errors = torch.stack([(prediction - truth).norm(p=order, dim=1) for truth in candidates])
            error = torch.where(known, errors, torch.inf).amin(0)
            low, high = _SPEEDS.get(name, (0.0, float("inf")))
            self._add_one(name, error[some_known & (speed >= low) & (speed < high)])

    def _add_one(self, name: str, errors: Float[Tensor, " pixels"]) -> None:
        if name.startswith("bad@"):
            errors = 100.0 * (errors > float(name.removeprefix("bad@")))
        self._sums[name] += float(errors.double().sum())
        self._counts[name] += len(errors)

    def result(self) -> dict[str, float]:
        """The means so far; 0 where no pixel counted."""
        return {name: self._sums[name] / max(self._counts[name], 1) for name in self._names}


def _mean_flow(candidates: Sequence[Map], known: Bool[Tensor, "candidates batch height width"]) -> Map:
    total = torch.stack([torch.where(k[:, None], truth, 0.0) for truth, k in zip(candidates, known, strict=True)]).sum(
        0
    )
    return total / known.sum(0).clamp(min=1)[:, None]
