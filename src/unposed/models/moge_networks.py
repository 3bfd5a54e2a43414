"""The networks of MoGe and MoGe-2: one picture of any aspect ratio to maps of its own size, before any camera is known.

Wang et al.: MoGe, Unlocking Accurate Monocular Geometry Estimation, CVPR 2025; MoGe-2, Accurate Monocular Geometry with
Metric Scale and Sharp Details, 2025. Points are affine-invariant: right up to one scale and one shift along z.
Pictures are RGB in [0, 1]. Module names are those of the released files.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unposed.geometry.view_plane import view_plane
from unposed.models.moge_config import LEVELS, MogeV1Config, MogeV2Config, Remap, StackConfig
from unposed.nets.conv_blocks import RESAMPLERS, Maps, ResidualBlock, conv3x3
from unposed.nets.dinov2 import PATCH, DinoV2, Features
from unposed.nets.heads import as_map
from unposed.nets.positions import Grid

Images = Float[Tensor, "batch 3 height width"]


class RawMaps(NamedTuple):
    """What a network says of pictures, at their size."""

    points: Float[Tensor, "batch height width 3"]
    """Affine-invariant points: times one scale and plus one z shift they are in the camera frame."""
    mask: Float[Tensor, "batch height width"] | None
    """Score of being part of a scene that has a depth; 0.5 divides (no probability in MoGe-1)."""
    normals: Float[Tensor, "batch height width 3"] | None = None
    """Unit surface normals in the camera frame."""
    metric_scale: Float[Tensor, "batch"] | None = None
    """Factor that makes shifted points metres."""


def remap(raw: Float[Tensor, "*batch 3"], how: Remap) -> Float[Tensor, "*batch 3"]:
    """Raw outputs to points (MoGe, supplement): ``exp`` makes z positive and x, y proportional to it."""
    if how == "linear":
        return raw
    if how == "sinh":
        return raw.sinh()
    xy, z = raw[..., :2], raw[..., 2:].exp()
    return torch.cat([xy * z if how == "exp" else xy.sinh(), z], -1)


def _normalisation() -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return mean.reshape(1, 3, 1, 1), std.reshape(1, 3, 1, 1)


def _uv_maps(size: Grid, aspect: float, like: Maps) -> Float[Tensor, "1 2 height width"]:
    return view_plane(*size, aspect, like.device, torch.float32).permute(2, 0, 1)[None]


def _with_uv(x: Maps, aspect: float) -> Maps:
    uv = _uv_maps((x.shape[-2], x.shape[-1]), aspect, x)
    return torch.cat([x, uv.expand(len(x), -1, -1, -1)], 1)


def _resized(x: Maps, size: Grid, mode: str = "bilinear", antialias: bool = False) -> Maps:
    return F.interpolate(x, size=size, mode=mode, align_corners=False, antialias=antialias)


class MogeV1(nn.Module):
    """MoGe (section 3.1): DINOv2 features, upsampled in three stages that are told where on the view plane they are."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: MogeV1Config) -> None:
        super().__init__()
        self.config = config
        self.has_normals = False
        mean, std = _normalisation()
        self.register_buffer("image_mean", mean)
        self.register_buffer("image_std", std)
        self.backbone = DinoV2(config.encoder)
        self.head = _V1Head(config)

    def encode(self, images: Images, tokens: int) -> tuple[Features, Grid, Grid]:
        """Features, the grid of patches, and the (height, width) that the picture was first resized to.

        Two resizes, as in training: to an area of ``tokens`` patches, then down to whole patches.
        """
        height, width = images.shape[-2:]
        factor = math.sqrt(PATCH**2 * tokens / (height * width))
        size = int(height * factor), int(width * factor)
        x = _resized(images, size, "bicubic", antialias=True)
        x = (x - self.image_mean) / self.image_std
        grid = size[0] // PATCH, size[1] // PATCH
        x = _resized(x, (grid[0] * PATCH, grid[1] * PATCH), antialias=True)
        return self.backbone(x, self.config.taps), grid, size

    def forward(self, images: Images, tokens: int, *, normals: bool = True) -> RawMaps:
        """Points and mask of a batch of pictures of one size; there are no ``normals`` in this version."""
        features, grid, size = self.encode(images, tokens)
        with torch.autocast(images.device.type, enabled=False):
            points, mask = self.head([as_map(layer.float(), grid) for layer in features.patches], size)
            target = images.shape[-2], images.shape[-1]
            points, mask = _resized(points, target), _resized(mask, target)
            return RawMaps(remap(points.permute(0, 2, 3, 1), self.config.remap_output), mask[:, 0])


class _V1Head(nn.Module):
    """Summed projections of the tapped features, three stages of upsampling, two output branches."""

    def __init__(self, config: MogeV1Config) -> None:
        super().__init__()
        self.projects = nn.ModuleList(nn.Conv2d(config.encoder.width, config.dim_proj, 1) for _ in config.taps)
        widths = [config.dim_proj, *config.dim_upsample]
        self.upsample_blocks = nn.ModuleList(
            nn.Sequential(
                RESAMPLERS["conv_transpose"](channels + 2, out),
                *(_v1_block(out, config) for _ in range(config.num_res_blocks)),
            )
            for channels, out in pairwise(widths)
        )
        self.output_block = nn.ModuleList(self._branch(channels, config) for channels in (3, 1))

    @staticmethod
    def _branch(channels: int, config: MogeV1Config) -> nn.Sequential:
        hidden, kernel = config.last_conv_channels, config.last_conv_size
        return nn.Sequential(
            conv3x3(config.dim_upsample[-1] + 2, hidden),
            *(_v1_block(hidden, config) for _ in range(config.last_res_blocks)),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, kernel, padding=kernel // 2, padding_mode="replicate"),
        )

    def forward(self, features: Sequence[Maps], size: Grid) -> tuple[Maps, Maps]:
        """Raw points and mask at ``size``, that of the picture after its first resize."""
        aspect = size[1] / size[0]
        layers = [project(layer) for project, layer in zip(self.projects, features, strict=True)]
        x = torch.stack(layers).sum(0)
        for stage in self.upsample_blocks:
            x = stage(_with_uv(x, aspect))
        x = _with_uv(_resized(x, size), aspect)
        points, mask = (branch(x) for branch in self.output_block)
        return points, mask


def _v1_block(channels: int, config: MogeV1Config) -> ResidualBlock:
    norm = "layer_norm" if config.res_block_norm == "group_norm" else config.res_block_norm
    return ResidualBlock(channels, channels * config.dim_times_res_block_hidden, norm, config.res_block_norm)


class MogeV2(nn.Module):
    """MoGe-2 (section 3): a neck that refines over five levels, one light head per map, and a metric scale."""

    def __init__(self, config: MogeV2Config) -> None:
        super().__init__()
        self.config = config
        self.has_normals = "normal" in config.heads
        self.encoder = _V2Encoder(config)
        self.neck = ConvStack(config.neck)
        self.points_head = ConvStack(config.heads["points"])
        self.mask_head = ConvStack(config.heads["mask"]) if "mask" in config.heads else None
        self.normal_head = ConvStack(config.heads["normal"]) if self.has_normals else None
        self.scale_head = _scale_head(config.scale_dims) if config.scale_dims else None
        self.by_size = False
        """Compute as exported (ONNX) graphs do: positions stretched by size, no antialiasing of the picture."""

    def grid(self, images: Images, tokens: int) -> Grid:
        """Rows and columns of about ``tokens`` patches with the picture's aspect ratio."""
        aspect = images.shape[-1] / images.shape[-2]
        return max(1, round(math.sqrt(tokens / aspect))), max(1, round(math.sqrt(tokens * aspect)))

    def forward(self, images: Images, tokens: int, *, normals: bool = True) -> RawMaps:
        """Maps of a batch of pictures of one size; without ``normals`` that head rests."""
        size, aspect = (images.shape[-2], images.shape[-1]), images.shape[-1] / images.shape[-2]
        grid = self.grid(images, tokens)
        features, cls = self.encoder(images, grid, self.by_size)
        with torch.autocast(images.device.type, enabled=False):
            pyramid = [_with_uv(features, aspect)]
            for level in range(1, LEVELS):
                pyramid.append(_uv_maps((grid[0] << level, grid[1] << level), aspect, features))
            pyramid = self.neck(pyramid)
            points = remap(_read_out(self.points_head, pyramid, size), self.config.remap_output)
            mask = normal = scale = None
            if self.mask_head is not None:
                mask = _read_out(self.mask_head, pyramid, size)[..., 0].sigmoid()
            if self.normal_head is not None and normals:
                normal = F.normalize(_read_out(self.normal_head, pyramid, size), dim=-1, eps=1e-12)
            if self.scale_head is not None:
                scale = self.scale_head(cls)[:, 0].exp()
            return RawMaps(points, mask, normal, scale)


class _V2Encoder(nn.Module):
    """The picture on a grid of patches, and the summed projections of DINOv2's features."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: MogeV2Config) -> None:
        super().__init__()
        self.taps = config.taps
        mean, std = _normalisation()
        self.register_buffer("image_mean", mean)
        self.register_buffer("image_std", std)
        self.backbone = DinoV2(config.encoder)
        self.output_projections = nn.ModuleList(nn.Conv2d(config.encoder.width, config.dim_out, 1) for _ in config.taps)

    def forward(self, images: Images, grid: Grid, by_size: bool) -> tuple[Maps, Float[Tensor, "batch width"]]:
        """Features on the grid, and the class token."""
        x = _resized(images, (grid[0] * PATCH, grid[1] * PATCH), antialias=not by_size)
        features = self.backbone((x - self.image_mean) / self.image_std, self.taps, by_size=by_size)
        layers = [
            project(as_map(layer.float(), grid))
            for project, layer in zip(self.output_projections, features.patches, strict=True)
        ]
        return torch.stack(layers).sum(0), features.cls


class ConvStack(nn.Module):
    """Maps of five levels in, maps of five levels out, each level also fed by the coarser one (MoGe-2, figure 3)."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        widths = config.dim_res_blocks
        self.input_blocks = nn.ModuleList(_pointwise(c, width) for c, width in zip(config.dim_in, widths, strict=True))
        self.res_blocks = nn.ModuleList(
            nn.Sequential(
                *(
                    ResidualBlock(width, width, config.res_block_in_norm, config.res_block_hidden_norm)
                    for _ in range(count)
                )
            )
            for width, count in zip(widths, config.num_res_blocks, strict=True)
        )
        self.resamplers = nn.ModuleList(
            RESAMPLERS[kind](channels, out)
            for kind, (channels, out) in zip(config.resamplers, pairwise(widths), strict=True)
        )
        self.output_blocks = nn.ModuleList(
            _pointwise(width, c) for c, width in zip(config.dim_out, widths, strict=True)
        )

    def forward(self, levels: Sequence[Maps]) -> list[Maps]:
        """All levels of the result; a level whose batch is 1 is the same for all pictures."""
        results: list[Maps] = []
        x: Maps | None = None
        for k, level in enumerate(levels):
            own = self.input_blocks[k](level)
            x = self.res_blocks[k](own if x is None else self.resamplers[k - 1](x) + own)
            results.append(self.output_blocks[k](x))
        return results


def _pointwise(channels: int | None, out: int | None) -> nn.Module:
    return nn.Identity() if channels is None or out is None else nn.Conv2d(channels, out, 1)


def _read_out(head: nn.Module, pyramid: Sequence[Maps], size: Grid) -> Float[Tensor, "batch height width channels"]:
    """The finest level of a head, at the picture's size."""
    return _resized(head(pyramid)[-1], size).permute(0, 2, 3, 1)


def _scale_head(dims: Sequence[int]) -> nn.Sequential:
    """Linear maps with ReLU between; in full precision, since an exponential follows."""
    layers: list[nn.Module] = []
    for width, out in pairwise(dims):
        layers += [nn.Linear(width, out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
