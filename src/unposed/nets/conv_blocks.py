"""Convolutional building blocks of dense decoders: residual blocks, resamplers, view-plane coordinates (MoGe, MoGe-2).

All 3x3 convolutions repeat the border. Indices inside the ``nn.Sequential`` are those of the released files.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

Maps = Float[Tensor, "batch channels height width"]

_GROUP = 32
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group_norm": lambda channels: nn.GroupNorm(max(1, channels // _GROUP), channels),
    "layer_norm": lambda channels: nn.GroupNorm(1, channels),
    "instance_norm": lambda channels: nn.InstanceNorm2d(channels),
    "none": lambda channels: nn.Identity(),
}
"""Norms by the names of the released configurations; groups of 32 channels, or one group of all."""


def conv3x3(channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that repeats the border and keeps the size."""
    return nn.Conv2d(channels, out_channels, 3, padding=1, padding_mode="replicate")


class ResidualBlock(nn.Module):
    """Twice norm, ReLU and 3x3 convolution, added to the input."""

    def __init__(self, channels: int, hidden: int, norm: str, hidden_norm: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            NORMS[norm](channels),
            nn.ReLU(),
            conv3x3(channels, hidden),
            NORMS[hidden_norm](hidden),
            nn.ReLU(),
            conv3x3(hidden, channels),
        )

    def forward(self, x: Maps) -> Maps:
        """Refined maps."""
        return x + self.layers(x)


def _enlarge(mode: str) -> Callable[[int, int], nn.Sequential]:
    return lambda channels, out: nn.Sequential(nn.Upsample(scale_factor=2, mode=mode), conv3x3(channels, out))


RESAMPLERS: dict[str, Callable[[int, int], nn.Sequential]] = {
    "conv_transpose": lambda channels, out: nn.Sequential(
        nn.ConvTranspose2d(channels, out, 2, stride=2), conv3x3(out, out)
    ),
    "bilinear": _enlarge("bilinear"),
    "nearest": _enlarge("nearest"),
    "pixel_shuffle": lambda channels, out: nn.Sequential(
        conv3x3(channels, 4 * out), nn.PixelShuffle(2), conv3x3(out, out)
    ),
}
"""Ways from one level of a pyramid to the next of twice the size: (channels, channels out) to a module."""
