"""mini: the small two-view network that ships with the package, trained on procedural scenes.

Our own configuration of DUSt3R's blocks (CVPR 2024, section 3.1) with MASt3R's local features (ECCV 2024, section
3.3), about 24 M parameters. It differs from them in two places. Patches are embedded by a small stack of convolutions
(Xiao et al., Early Convolutions Help Transformers See Better, NeurIPS 2021), whose finer maps also reach the heads, so
that detail need not squeeze through tokens of 16 x 16 pixels. And the heads are light: they end at a quarter of the
resolution, each cell giving its 4 x 4 pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unposed.errors import UserError
from unposed.io.checkpoints import Checkpoint, load_tensors
from unposed.io.resize import ImageRule
from unposed.models.batching import Features, Maps, decode_by_shape, encode_by_size
from unposed.models.croco import are_sides, check_sizes
from unposed.nets.heads import ResidualUnit, as_map, regress_confidence, regress_points
from unposed.nets.positions import Grid, grid_positions, rotary_table
from unposed.nets.transformer import Encoder, TwinDecoder, initialise
from unposed.views import Pair, PairPrediction, View

Images = Float[Tensor, "batch 3 height width"]
Size = tuple[int, int]

SYSTEM = "mini"
"""What a file's metadata says under ``system``."""
_PATCH = 16
_CELL = 4
_INFINITE = float("inf")


@dataclass(frozen=True)
class MiniConfig:
    """Sizes of the network."""

    image_size: int = 384
    """Long side of a view at inference; any sides that are multiples of 16 work."""
    enc_width: int = 384
    enc_depth: int = 6
    enc_heads: int = 6
    dec_width: int = 256
    dec_depth: int = 5
    dec_heads: int = 4
    head_width: int = 96
    descriptor_width: int = 24
    rope_base: float = 100.0

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> "MiniConfig":
        """From the JSON configuration in a file's metadata.

        Raises:
            UserError: keywords that no such network has, or values out of all proportion.
        """
        if set(keywords) != {field.name for field in fields(cls)}:
            raise UserError("This file's configuration is not of a mini network of this version; get a matching file.")
        config = cls(**keywords)
        check_sizes(config.enc_width, config.enc_depth, config.enc_heads)
        check_sizes(config.dec_width, config.dec_depth, config.dec_heads)
        widths = (config.head_width, config.descriptor_width)
        if not all(type(width) is int and 0 < width <= 512 for width in widths):
            raise UserError("This file's configuration has impossible head sizes; the file is damaged.")
        if not are_sides((config.image_size, config.image_size)) or not isinstance(config.rope_base, int | float):
            raise UserError("This file's configuration has an impossible picture size; the file is damaged.")
        return config


class Mini(nn.Module):
    """The network and its use as a ``PairModel``.

    For training, call it on two batches of pictures in [-1, 1]; gradients flow, nothing is read back to the host, and
    it compiles. Weights of a file are loaded by ``from_checkpoint``.
    """

    metric = False

    def __init__(self, config: MiniConfig | None = None, name: str = SYSTEM) -> None:
        super().__init__()
        self.config = config = config or MiniConfig()
        self.name = name
        self.image_rule = ImageRule(size=config.image_size, square_ok=True)
        self.stem = ConvStem(config.enc_width)
        self.encoder = Encoder(config.enc_width, config.enc_depth, config.enc_heads)
        self.decoder = TwinDecoder(config.enc_width, config.dec_width, config.dec_depth, config.dec_heads)
        for part in (self.encoder, self.decoder):
            initialise(part)
        self.head1, self.head2 = MiniHead(config), MiniHead(config)

    def encode_images(self, images: Images) -> Features:
        """``tokens`` of pictures in [-1, 1], and the stem's maps at 1/4 and 1/8 of their size."""
        quarter, eighth, sixteenth = self.stem(images)
        tokens = sixteenth.flatten(2).transpose(1, 2).float()
        rotary = rotary_table(
            grid_positions(_grid(images.shape[-2:]), images.device), self.encoder.head_dim, self.config.rope_base
        )
        return {"tokens": self.encoder(tokens, rotary), "quarter": quarter, "eighth": eighth}

    def decode_features(self, view1: Features, view2: Features, size1: Size, size2: Size) -> tuple[Maps, Maps]:
        """Dense maps of both views, whose (height, width) are given."""
        rotary1, rotary2 = (
            rotary_table(
                grid_positions(_grid(size), view1["tokens"].device), self.decoder.head_dim, self.config.rope_base
            )
            for size in (size1, size2)
        )
        layers1, layers2 = self.decoder(view1["tokens"], view2["tokens"], rotary1, rotary2)
        return self.head1(layers1, view1, _grid(size1)), self.head2(layers2, view2, _grid(size2))

    def forward(self, images1: Images, images2: Images) -> tuple[Maps, Maps]:
        """Training forward of a batch of pairs, any heights and widths that are multiples of 16.

        Returns, for either view, float32 maps in the frame of camera 1 of the pair:
            ``points`` (batch, height, width, 3); ``confidence`` (batch, height, width), at least 1;
            ``descriptors`` (batch, height, width, channels), unit;
            ``descriptor_confidence`` (batch, height, width), positive.
        """
        size1, size2 = (images1.shape[-2], images1.shape[-1]), (images2.shape[-2], images2.shape[-1])
        if size1 == size2:
            both = self.encode_images(torch.cat([images1, images2]))
            view1, view2 = ({name: value.chunk(2)[k] for name, value in both.items()} for k in (0, 1))
        else:
            view1, view2 = self.encode_images(images1), self.encode_images(images2)
        return self.decode_features(view1, view2, size1, size2)

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.encoder.norm.weight.device

    @torch.no_grad()
    def encode(self, views: Sequence[View]) -> list[Features]:
        """Tokens and stem maps of each view."""
        return encode_by_size(self.encode_images, views, self.device)

    @torch.no_grad()
    def decode(
        self, views: Sequence[View], features: Sequence[Features], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairPrediction]]:
        """Predictions of ordered pairs, with descriptors, batched by the shapes of their views."""
        yield from decode_by_shape(self.decode_features, views, features, pairs, self.device)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, name: str = SYSTEM) -> "Mini":
        """The network of a file whose metadata hold ``system`` and ``config``.

        Raises:
            UserError: it is another system's, or names or shapes do not fit.
        """
        if checkpoint.extra.get("system") != SYSTEM or "config" not in checkpoint.extra:
            raise UserError(f"{checkpoint.path} holds no mini network; give one that `unposed train mini` wrote.")
        with torch.device("meta"):
            network = cls(MiniConfig.from_keywords(checkpoint.extra["config"]), name)
        load_tensors(network, checkpoint.tensors, checkpoint.path)
        return network


class ConvStem(nn.Module):
    """Four 3x3 convolutions of stride 2: one token per 16 x 16 pixels, and finer maps on the way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = (3, width // 8, width // 4, width // 2, width)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(channels))

    def forward(self, images: Images) -> list[Float[Tensor, "batch _ rows columns"]]:
        """Maps at 1/4, 1/8 and 1/16 of the pictures' size."""
        x = images.contiguous(memory_format=torch.channels_last)
        maps = []
        for k, conv in enumerate(self.convs):
            x = conv(x if k == 0 else F.gelu(x))
            maps.append(x)
        return maps[1:]


class MiniHead(nn.Module):
    """From token layers and stem maps to points, confidence, descriptors and their confidence."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        width, dec_depth = config.head_width, config.dec_depth
        self.hooks = (0, (dec_depth + 1) // 2, dec_depth)
        self.coarse = nn.Conv2d(config.enc_width + 2 * config.dec_width, width, 1)
        self.eighth = nn.Conv2d(config.enc_width // 2, width, 1)
        self.quarter = nn.Conv2d(config.enc_width // 4, width, 1)
        self.units = nn.ModuleList(ResidualUnit(width) for _ in range(3))
        self.geometry = _pixel_branch(width, 4)
        self.features = _pixel_branch(width, config.descriptor_width + 1)

    def forward(self, layers: Sequence[Float[Tensor, "batch tokens _"]], view: Features, grid: Grid) -> Maps:
        """Maps at 16 times the grid's size."""
        tokens = torch.cat([layers[hook].float() for hook in self.hooks], -1)
        x = self.units[0](self.coarse(as_map(tokens, grid)))
        x = self.units[1](_double(x) + self.eighth(F.gelu(view["eighth"])))
        x = self.units[2](_double(x) + self.quarter(F.gelu(view["quarter"])))
        geometry, features = (
            F.pixel_shuffle(branch(x), _CELL).permute(0, 2, 3, 1).float() for branch in (self.geometry, self.features)
        )
        return {
            "points": regress_points(geometry[..., :3], ("exp", -_INFINITE, _INFINITE)),
            "confidence": regress_confidence(geometry[..., 3], ("exp", 1, _INFINITE)),
            "descriptors": F.normalize(features[..., :-1], dim=-1),
            "descriptor_confidence": regress_confidence(features[..., -1], ("exp", 0, _INFINITE)),
        }


def _pixel_branch(width: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, channels * _CELL**2, 1)
    )


def _double(x: Float[Tensor, "batch width rows columns"]) -> Float[Tensor, "batch width rows2 columns2"]:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _grid(size: Sequence[int]) -> Grid:
    height, width = size
    if height % _PATCH or width % _PATCH:
        raise ValueError(f"picture of {height} x {width} pixels: both must be multiples of {_PATCH}")
    return height // _PATCH, width // _PATCH
