"""How alike two pictures are: PSNR, SSIM and, where its package is installed, LPIPS."""

from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from unposed.errors import UserError

Pictures = Float[Tensor, "batch channels height width"]

_SIGMA, _TRUNCATE, _WINDOW = 1.5, 3.5, 11


def psnr(predicted: Pictures, truth: Pictures) -> Float[Tensor, "batch"]:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1]; values outside are clipped. Equal ones are infinite."""
    difference = predicted.clamp(0, 1) - truth.clamp(0, 1)
    return -10 * difference.double().square().flatten(1).mean(1).log10()


def ssim(predicted: Pictures, truth: Pictures) -> Float[Tensor, "batch"]:
    """Structural similarity (Wang et al. 2004) of pictures in [0, 1], not clipped; mean over the channels.

    scikit-image's variant, which the splatting papers use: Gaussian window of 11 pixels and sigma 1.5, sample
    covariance (n / (n - 1)), the border of 5 pixels left out.

    Raises:
        UserError: a side of the pictures is shorter than the window.
    """
    if min(truth.shape[-2:]) < _WINDOW:
        raise UserError(
            f"SSIM needs pictures of at least {_WINDOW} pixels a side, these have {tuple(truth.shape[-2:])}."
        )
    return torch.tensor(
        [np.mean([_ssim(x, y) for x, y in zip(a, b, strict=True)])
         for a, b in zip(predicted.double().numpy(), truth.double().numpy(), strict=True)]
    )  # fmt: skip


def _ssim(x: Float[np.ndarray, "height width"], y: Float[np.ndarray, "height width"]) -> float:
    def blurred(values: np.ndarray) -> np.ndarray:
        border = _WINDOW // 2
        return gaussian_filter(values, _SIGMA, truncate=_TRUNCATE)[border:-border, border:-border]

    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    mean_x, mean_y = blurred(x), blurred(y)
    variance_x = unbiased * (blurred(x * x) - mean_x**2)
    variance_y = unbiased * (blurred(y * y) - mean_y**2)
    covariance = unbiased * (blurred(x * y) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean())


def lpips(predicted: Pictures, truth: Pictures) -> Float[Tensor, "batch"]:
    """Learned perceptual distance (Zhang et al. 2018), VGG variant, of pictures in [0, 1].

    Raises:
        UserError: the package ``lpips`` is not installed, or its weights are not there and cannot be had.
    """
    with torch.no_grad():
        return _lpips_network()(predicted.float(), truth.float(), normalize=True).flatten()


@cache
def _lpips_network() -> Any:
    try:
        from lpips import LPIPS  # type: ignore[import-not-found,unused-ignore]

        return LPIPS(net="vgg", verbose=False).eval()
    except (ImportError, OSError) as error:
        raise UserError(f"LPIPS cannot be computed ({error}); pip install lpips, with network access once.") from error
