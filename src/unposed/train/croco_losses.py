"""Losses of CroCo: masked completion (CroCo, section 3.1), and disparity or flow with a raw confidence channel.

In the latter e is the sum over channels of |truth - prediction| and c the raw confidence; pixels of unknown truth are
infinite in the data and left out. Constants (ln 2) are dropped, as in the published code (CroCo v2, section 3.4).
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Patches = Float[Tensor, "batch tokens pixels"]
Map = Float[Tensor, "batch channels height width"]
Confidence = Float[Tensor, "batch 1 height width"]

_VARIANCE_EPSILON = 1e-6


def masked_mse(
    prediction: Patches, target: Patches, mask: Bool[Tensor, "batch tokens"], normalise: bool = True
) -> Float[Tensor, ""]:
    """Mean squared error of the pixels of the masked patches.

    ``normalise`` compares with the target patch after its own mean and unbiased variance.
    """
    if normalise:
        mean, deviation = patch_statistics(target)
        target = (target - mean) / deviation
    per_patch = (prediction - target).square().mean(-1)
    return (per_patch * mask).sum() / mask.sum()


def patch_statistics(target: Patches) -> tuple[Float[Tensor, "batch tokens 1"], Float[Tensor, "batch tokens 1"]]:
    """Mean and standard deviation of every patch; ``prediction * deviation + mean`` shows a normalised prediction."""
    return target.mean(-1, keepdim=True), (target.var(-1, keepdim=True) + _VARIANCE_EPSILON).sqrt()


def _known(truth: Map, max_norm: float | None) -> Bool[Tensor, "batch height width"]:
    known = truth.isfinite().all(1)
    if max_norm is None:
        return known
    size = truth[:, 0] if truth.shape[1] == 1 else truth.norm(dim=1)  # a disparity is positive
    return known & (size < max_norm)


def l1(prediction: Map, truth: Map, max_norm: float | None = None) -> Float[Tensor, ""]:
    """Mean absolute error over the channels of the known pixels."""
    known = _known(truth, max_norm)
    return (truth - prediction).abs().movedim(1, -1)[known].mean()


def _with_confidence(
    prediction: Map, truth: Map, raw: Confidence, max_norm: float | None, term: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, ""]:
    known = _known(truth, max_norm)
    error = (truth - prediction).abs().sum(1)
    return term(error[known], raw[:, 0][known]).mean()


def laplacian(prediction: Map, truth: Map, raw: Confidence, max_norm: float | None = None) -> Float[Tensor, ""]:
    """e / exp(c) + c: the negative log-likelihood of a Laplacian of log-scale c."""
    return _with_confidence(prediction, truth, raw, max_norm, lambda e, c: e / c.exp() + c)


def laplacian_bounded(
    prediction: Map, truth: Map, raw: Confidence, max_norm: float | None = 10000.0, a: float = 0.25, b: float = 4.0
) -> Float[Tensor, ""]:
    """e / d + ln d with the scale d = (b - a) sigmoid(c) + a; CroCo-Flow's loss."""

    def term(error: Tensor, c: Tensor) -> Tensor:
        scale = (b - a) * torch.sigmoid(c) + a
        return error / scale + scale.log()

    return _with_confidence(prediction, truth, raw, max_norm, term)


def laplacian_log_bounded(
    prediction: Map, truth: Map, raw: Confidence, max_norm: float | None = None, a: float = 3.0, b: float = 3.0
) -> Float[Tensor, ""]:
    """e / exp(d) + d with the log-scale d = 2 a (sigmoid(c / b) - 1/2); CroCo-Stereo's loss."""

    def term(error: Tensor, c: Tensor) -> Tensor:
        log_scale = 2 * a * (torch.sigmoid(c / b) - 0.5)
        return error / log_scale.exp() + log_scale

    return _with_confidence(prediction, truth, raw, max_norm, term)
