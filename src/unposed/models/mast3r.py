"""MASt3R: DUSt3R with local descriptors that match, and points in metres.

Leroy, Cabon, Revaud: Grounding Image Matching in 3D with MASt3R, ECCV 2024. Encoder and decoders are DUSt3R's. A
second branch of every head gives, for every pixel, a unit descriptor and how far it can be trusted (section 3.2).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unposed.errors import UserError
from unposed.io.checkpoints import Rename
from unposed.models.batching import Maps
from unposed.models.croco import dpt_keys
from unposed.models.dust3r import BACKBONE_KEYS, Dust3r, Dust3rConfig, dpt_head, is_mode
from unposed.nets.heads import Mode, as_map, regress_confidence
from unposed.nets.positions import Grid
from unposed.nets.transformer import Mlp

CLASS_NAME = "AsymmetricMASt3R"
"""What released files call the network."""
_PATCH = 16
_MLP_RATIO = 4
_OUTPUT = re.compile(r"pts3d\+desc(\d{1,3})")
_SUBPATCH, _CONV_CHANNELS, _CONV_WIDTH = 2, 24, 100  # of the convolutional point branch

Tokens = Float[Tensor, "batch tokens width"]


@dataclass(frozen=True)
class Mast3rConfig(Dust3rConfig):
    """Sizes and output modes; the defaults are those of the released model."""

    head_type: str = "catmlp+dpt"
    output_mode: str = "pts3d+desc24"
    """The number is that of the descriptors' channels."""
    two_confs: bool = True
    """Whether descriptors have a confidence of their own; else it is that of the points."""
    desc_conf_mode: Mode | None = None
    """Activation of that confidence; that of the points' confidence where it is None."""

    @property
    def descriptor_width(self) -> int:
        """Channels of the descriptors."""
        match = _OUTPUT.fullmatch(self.output_mode)
        return int(match[1]) if match else 0

    @property
    def descriptor_confidence_mode(self) -> Mode | None:
        """Activation of the descriptors' confidence."""
        return self.desc_conf_mode or self.conf_mode

    def _validate_head(self) -> None:
        if not self.descriptor_width:
            raise UserError(f"No MASt3R output {self.output_mode!r}; released models have pts3d+desc24.")
        if self.head_type not in ("catmlp+dpt", "catconv") or (self.head_type == "catmlp+dpt" and self.dec_depth < 10):
            raise UserError(f"No MASt3R head {self.head_type!r} for {self.dec_depth} decoder blocks.")
        if self.conf_mode is None or not is_mode(self.descriptor_confidence_mode, ("exp", "sigmoid")):
            raise UserError("This MASt3R configuration has an impossible confidence mode.")


class Mast3r(Dust3r):
    """The network and its use as a ``PairModel``; predictions have descriptors, and lengths are metres."""

    metric = True
    config: Mast3rConfig
    config_type: ClassVar[type[Dust3rConfig]] = Mast3rConfig

    def __init__(self, config: Mast3rConfig, name: str = "mast3r") -> None:
        super().__init__(config, name)

    def make_head(self) -> nn.Module:
        """Points and descriptors, each with their confidence, in one map."""
        return MatchingHead(self.config)

    def activate(self, raw: Float[Tensor, "batch height width channels"]) -> Maps:
        """Raw maps to ``points``, ``confidence``, unit ``descriptors`` and ``descriptor_confidence``."""
        maps = super().activate(raw[..., :4])
        width = self.config.descriptor_width
        maps["descriptors"] = F.normalize(raw[..., 4 : 4 + width], dim=-1)
        mode = self.config.descriptor_confidence_mode
        assert mode is not None, "checked with the configuration"
        own = self.config.two_confs
        maps["descriptor_confidence"] = regress_confidence(raw[..., -1], mode) if own else maps["confidence"]
        return maps

    @classmethod
    def keys(cls) -> Sequence[Rename]:
        """Names of the released files to ours."""
        return KEYS


class MatchingHead(nn.Module):
    """A branch for points and one for descriptors, which is one MLP per token of encoder and decoder together."""

    def __init__(self, config: Mast3rConfig) -> None:
        super().__init__()
        width = config.enc_embed_dim + config.dec_embed_dim
        self.points = dpt_head(config, 4) if config.head_type == "catmlp+dpt" else ConvPoints(width)
        channels = config.descriptor_width + config.two_confs
        self.local = Mlp(width, _MLP_RATIO, channels * _PATCH**2)

    def forward(self, layers: Sequence[Tokens], grid: Grid) -> Float[Tensor, "batch channels height width"]:
        """Raw map: points, their confidence, descriptors and, where it has one, their confidence."""
        tokens = torch.cat([layers[0], layers[-1]], -1).float()
        points = self.points(layers, grid)
        return torch.cat([points, F.pixel_shuffle(as_map(self.local(tokens), grid), _PATCH)], 1)


class ConvPoints(nn.Module):
    """The head without DPT, for decoders of any depth: an MLP to half the size, then two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = _CONV_CHANNELS + 1
        self.mlp = Mlp(width, _MLP_RATIO, channels * (_PATCH // _SUBPATCH) ** 2)
        self.conv1 = nn.Conv2d(channels, _CONV_WIDTH, 3, padding=1)
        self.conv2 = nn.Conv2d(_CONV_WIDTH, 4, 1)

    def forward(self, layers: Sequence[Tokens], grid: Grid) -> Float[Tensor, "batch 4 height width"]:
        """Raw points and confidence at full size."""
        tokens = torch.cat([layers[0], layers[-1]], -1).float()
        small = F.pixel_shuffle(as_map(self.mlp(tokens), grid), _PATCH // _SUBPATCH)
        full = F.interpolate(small, scale_factor=_SUBPATCH, mode="bilinear", align_corners=True)
        return self.conv2(F.relu(self.conv1(full)))


_HEAD = r"downstream_head([12])\."

KEYS = (
    *BACKBONE_KEYS,
    *dpt_keys(rf"{_HEAD}dpt\.", r"head\1.points."),
    Rename(rf"{_HEAD}head_local_features\.(.+)", r"head\1.local.\2"),
    Rename(rf"{_HEAD}head_pts3d\.mlp\.(.+)", r"head\1.points.mlp.\2"),
    Rename(rf"{_HEAD}head_pts3d\.head\.1\.(.+)", r"head\1.points.conv1.\2"),
    Rename(rf"{_HEAD}head_pts3d\.head\.3\.(.+)", r"head\1.points.conv2.\2"),
)
"""Names of the released files to ours."""
