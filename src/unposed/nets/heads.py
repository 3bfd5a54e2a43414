"""From decoder tokens to dense maps: the linear and the DPT head, and the activations of pointmaps and confidences.

Sources: DUSt3R, section 3.1 and its released configuration; Ranftl et al., Vision Transformers for Dense Prediction
(DPT), in the variant of CroCo-Stereo. Heads always compute in float32.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unposed.nets.positions import Grid

LAYER_WIDTHS = (96, 192, 384, 768)
"""Channels of the four maps that a DPT head makes of its token layers, finest first."""

Mode = tuple[str, float, float]
"""(name, lower bound, upper bound) of an activation."""


def regress_points(raw: Float[Tensor, "*batch 3"], mode: Mode) -> Float[Tensor, "*batch 3"]:
    """Points from raw outputs p: exp gives p/|p| * expm1(|p|), square p * |p|, linear p itself.

    Raises:
        ValueError: unknown mode, or finite bounds, which no released model has.
    """
    name, low, high = mode
    if not (math.isinf(low) and math.isinf(high)):
        raise ValueError(f"bounded depth mode {mode} is not supported")
    if name == "linear":
        return raw
    norm = raw.norm(dim=-1, keepdim=True)
    direction = raw / norm.clamp(min=1e-8)
    if name == "exp":
        return direction * norm.expm1()
    if name == "square":
        return direction * norm.square()
    raise ValueError(f"unknown depth mode {name}")


def regress_confidence(raw: Float[Tensor, "*batch"], mode: Mode) -> Float[Tensor, "*batch"]:
    """Confidence from raw outputs x: exp gives low + min(e^x, high - low), sigmoid low + (high - low) sigmoid(x).

    Raises:
        ValueError: unknown mode.
    """
    name, low, high = mode
    if name == "exp":
        return low + raw.exp().clamp(max=high - low)
    if name == "sigmoid":
        return low + (high - low) * raw.sigmoid()
    raise ValueError(f"unknown confidence mode {name}")


class LinearHead(nn.Module):
    """One linear map per token, its outputs laid out as the pixels of the patch."""

    def __init__(self, width: int, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(width, channels * patch * patch)

    def forward(
        self, layers: Sequence[Float[Tensor, "batch tokens _"]], grid: Grid
    ) -> Float[Tensor, "batch channels height width"]:
        """Map at full size from the last layer of tokens."""
        return F.pixel_shuffle(as_map(self.proj(layers[-1].float()), grid), self.patch)


class DptHead(nn.Module):
    """Four layers of tokens, as maps of four scales, fused from coarse to fine into one map at full size."""

    def __init__(
        self,
        hooks: Sequence[int],
        widths: Sequence[int],
        channels: int,
        *,
        features: int = 256,
        last_width: int = 128,
        layer_widths: Sequence[int] = LAYER_WIDTHS,
    ) -> None:
        """``hooks`` are the numbers of the token layers to read, finest first, and ``widths`` their widths."""
        super().__init__()
        self.hooks = tuple(hooks)
        a, b, _, d = layer_widths
        self.project = nn.ModuleList(nn.Conv2d(w, c, 1) for w, c in zip(widths, layer_widths, strict=True))
        self.resample = nn.ModuleList(
            [
                nn.ConvTranspose2d(a, a, 4, stride=4),
                nn.ConvTranspose2d(b, b, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(d, d, 3, stride=2, padding=1),
            ]
        )
        self.reduce = nn.ModuleList(nn.Conv2d(c, features, 3, padding=1, bias=False) for c in layer_widths)
        self.fusions = nn.ModuleList(Fusion(features, has_skip=level < 3) for level in range(4))
        self.conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(features // 2, last_width, 3, padding=1)
        self.conv3 = nn.Conv2d(last_width, channels, 1)

    def forward(
        self, layers: Sequence[Float[Tensor, "batch tokens _"]], grid: Grid
    ) -> Float[Tensor, "batch channels height width"]:
        """Map at 16 times the grid's size."""
        maps = [
            reduce(resample(project(as_map(layers[hook].float(), grid))))
            for hook, project, resample, reduce in zip(
                self.hooks, self.project, self.resample, self.reduce, strict=True
            )
        ]
        x = self.fusions[3](maps[3])
        for level in (2, 1, 0):
            height, width = maps[level].shape[-2:]  # an odd token count makes the coarser map one too large
            x = self.fusions[level](x[..., :height, :width], maps[level])
        return self.conv3(F.relu(self.conv2(_double(self.conv1(x)))))


class Fusion(nn.Module):
    """Add a finer map to the coarse result so far and double the size (RefineNet block of DPT)."""

    def __init__(self, width: int, has_skip: bool) -> None:
        super().__init__()
        self.skip = ResidualUnit(width) if has_skip else None
        self.merge = ResidualUnit(width)
        self.out = nn.Conv2d(width, width, 1)

    def forward(
        self,
        x: Float[Tensor, "batch width height width_px"],
        finer: Float[Tensor, "batch width height width_px"] | None = None,
    ) -> Float[Tensor, "batch width double_height double_width"]:
        """Fused map; ``out`` is pointwise and comes before the enlargement, which is the same sum at a quarter."""
        if self.skip is not None and finer is not None:
            x = x + self.skip(finer)
        return _double(self.out(self.merge(x)))


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch width height width_px"]) -> Float[Tensor, "batch width height width_px"]:
        """Refined map."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


def as_map(tokens: Float[Tensor, "batch tokens width"], grid: Grid) -> Float[Tensor, "batch width rows columns"]:
    """Tokens as a picture, channels last in memory."""
    return tokens.unflatten(1, grid).permute(0, 3, 1, 2)


def _double(x: Float[Tensor, "batch width rows columns"]) -> Float[Tensor, "batch width rows2 columns2"]:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
