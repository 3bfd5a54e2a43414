"""A small convolutional network for local features and single-view depth that trains and runs on a CPU.

A U-Net (Ronneberger et al., MICCAI 2015) with a context path to stride 32 and its outputs at stride 4: unit descriptors
with a reliability, learned as in R2D2 (Revaud et al., NeurIPS 2019) and XFeat (Potje et al., CVPR 2024), and log-depth
up to scale with a confidence. Keypoints are not learned: ``corner_response`` is closed-form and localises them.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STRIDE = 4
"""Pixels per cell of every output map; cell (r, c) is centred on pixel (1.5 + 4 c, 1.5 + 4 r)."""


class ConvFeatures(NamedTuple):
    """Output maps of ``ConvNet`` at stride 4."""

    descriptors: Float[Tensor, "batch channels rows columns"]
    """Not normalised; ``sample_descriptors`` interpolates and makes them unit vectors."""
    reliability: Float[Tensor, "batch rows columns"]
    """Logit of the probability that a mutual nearest neighbour by the descriptor is right."""
    log_depth: Float[Tensor, "batch rows columns"]
    """Natural logarithm of the z-depth, up to one additive constant for each image."""
    log_scale: Float[Tensor, "batch rows columns"]
    """Logarithm of the expected absolute error of ``log_depth`` (scale of a Laplace distribution)."""


class _Conv(nn.Sequential):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )


class _Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al., CVPR 2016)."""

    def __init__(self, width: int):
        super().__init__()
        self.first = _Conv(width, width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        return F.relu(x + self.norm(self.second(self.first(x))))


class _Merge(nn.Module):
    """Coarse features, upsampled, added to finer ones; both brought to ``outputs`` channels first."""

    def __init__(self, coarse: int, fine: int, outputs: int):
        super().__init__()
        self.coarse = nn.Conv2d(coarse, outputs, 1)
        self.fine = nn.Conv2d(fine, outputs, 1)
        self.conv = _Conv(outputs, outputs)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(batch, outputs, rows, columns) at the size of ``fine``."""
        up = F.interpolate(self.coarse(coarse), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.conv(up + self.fine(fine))


class ConvNet(nn.Module):
    """Images in, ``ConvFeatures`` out. About 1.5 M parameters and 10 GFLOP for 640 x 480 pixels."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 80, 112, 160), channels: int = 64):
        """``widths``: channels at strides 2, 4, 8, 16, 32; ``channels``: of a descriptor."""
        super().__init__()
        stem, w4, w8, w16, w32 = widths
        self.stage4 = nn.Sequential(_Conv(3, stem, 2), _Conv(stem, w4, 2), _Residual(w4))
        self.stage8 = nn.Sequential(_Conv(w4, w8, 2), _Residual(w8), _Residual(w8))
        self.stage16 = nn.Sequential(_Conv(w8, w16, 2), _Residual(w16), _Residual(w16))
        self.stage32 = nn.Sequential(_Conv(w16, w32, 2), _Residual(w32), _Residual(w32))
        self.merge16 = _Merge(w32, w16, w16)
        self.merge8 = _Merge(w16, w8, w8)
        self.merge4 = _Merge(w8, w4, channels)
        self.feature_head = nn.Conv2d(channels, channels + 1, 1)
        self.depth_head = nn.Sequential(_Conv(channels, 32), nn.Conv2d(32, 2, 1))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> ConvFeatures:
        """Features of RGB images in [0, 1]; sides that are not multiples of 32 are padded by their last pixels."""
        height, width = images.shape[-2:]
        padded = F.pad((images - 0.45) / 0.25, (0, -width % 32, 0, -height % 32), mode="replicate")
        f4 = self.stage4(padded)
        f8 = self.stage8(f4)
        f16 = self.stage16(f8)
        merged = self.merge4(self.merge8(self.merge16(self.stage32(f16), f16), f8), f4)
        rows, columns = -(-height // STRIDE), -(-width // STRIDE)
        features = self.feature_head(merged)[..., :rows, :columns].float()
        depth = self.depth_head(merged)[..., :rows, :columns].float()
        log_scale = 4 * torch.tanh(depth[:, 1] / 4)
        return ConvFeatures(features[:, :-1], features[:, -1], depth[:, 0], log_scale)


def sample_map(
    maps: Float[Tensor, "batch channels rows columns"], points: Float[Tensor, "batch n 2"]
) -> Float[Tensor, "batch n channels"]:
    """Bilinear values of stride-4 maps at image pixels (x, y); clamped to the border outside."""
    rows, columns = maps.shape[-2:]
    cells = (points + 0.5) / (STRIDE * points.new_tensor([columns, rows]))
    grid = 2 * cells[:, :, None] - 1
    return F.grid_sample(maps, grid, "bilinear", "border", align_corners=False)[..., 0].transpose(1, 2)


def sample_descriptors(
    maps: Float[Tensor, "batch channels rows columns"], points: Float[Tensor, "batch n 2"]
) -> Float[Tensor, "batch n channels"]:
    """Unit descriptors at image pixels (x, y)."""
    return F.normalize(sample_map(maps, points), dim=-1)


def gaussian_blur(
    images: Float[Tensor, "batch channels height width"], sigma: float
) -> Float[Tensor, "batch channels height width"]:
    """Separable Gaussian of ``sigma`` pixels, borders repeated."""
    radius = max(1, round(2.5 * sigma))
    weights = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-radius, radius + 1)]
    total = sum(weights)
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    for axis in (2, 3):  # shifted sums: several times faster than a one-channel convolution
        length = padded.shape[axis] - 2 * radius
        blurred = padded.narrow(axis, 0, length) * (weights[0] / total)
        for start in range(1, 2 * radius + 1):
            blurred.add_(padded.narrow(axis, start, length), alpha=weights[start] / total)
        padded = blurred
    return padded


def corner_response(
    images: Float[Tensor, "batch 3 height width"], derivative: float = 1.0, window: float = 1.6
) -> Float[Tensor, "batch height width"]:
    """Square root of the smaller eigenvalue of the structure tensor (Shi and Tomasi, CVPR 1994).

    ``derivative`` and ``window`` are the Gaussian scales, in pixels, of the gradient and of its average.
    """
    grey = gaussian_blur(images.mean(1, keepdim=True), derivative)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    xx, yy, xy = gaussian_blur(torch.cat([dx * dx, dy * dy, dx * dy], 1), window).unbind(1)
    smaller = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square() + 1e-12).sqrt()
    return smaller.clamp(min=0).sqrt()
