"""Training of the composed model's convolutional network: descriptors that match, reliability, single-view depth.

Half of every batch are photos under random homographies, half are pairs of views of rendered scenes, where depth and
poses give exact correspondences and the depth itself. Small enough for an hour of one CPU core.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from unposed.geometry.cameras import backproject, pixel_grid, project
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.nets.convnet import STRIDE, ConvFeatures, ConvNet, corner_response, sample_descriptors, sample_map
from unposed.synth import RenderedViews, load_textures, render_scenes
from unposed.synth.textures import Split
from unposed.train.recipe import Batch, Optimisation
from unposed.train.warps import DensePairs, homography_pairs, load_photos, photometric

_TEMPERATURE = 0.05
_VALIDATION_SEED = 50_000_000
_TOO_CLOSE = 4.0
"""Pixels: points closer than this to the right answer are not called wrong."""


@dataclass(frozen=True)
class ComposedConfig:
    """Sizes of the training."""

    side: int = 160
    """Training images are squares of this many pixels."""
    warped: int = 6
    """Homography pairs a batch."""
    rendered: int = 6
    """Rendered pairs a batch."""
    points: int = 256
    """Correspondences a pair; as many distractors come from each image."""
    scenes: int = 4
    """Scenes rendered at a time."""
    views: int = 4
    """Views of a scene."""
    pool: int = 16
    """Groups of ``scenes`` kept; every batch draws its pairs from all of them."""
    renew: int = 6
    """Steps after which the oldest group is replaced."""
    validation: int = 64
    """Pairs of each kind in the validation set."""


def correspondences(
    depth_a: Float[Tensor, "n height width"],
    depth_b: Float[Tensor, "n height width"],
    intrinsics_a: Float[Tensor, "n 3 3"],
    intrinsics_b: Float[Tensor, "n 3 3"],
    b_from_a: Float[Tensor, "n 4 4"],
) -> tuple[Float[Tensor, "n height width 2"], Bool[Tensor, "n height width"]]:
    """Where every pixel of a lies in b, and where it is seen there: inside, in front, depths within 3 per cent."""
    n, height, width = depth_a.shape
    pixels = pixel_grid(height, width, depth_a.device).reshape(1, -1, 2).expand(n, -1, 2)
    known = torch.isfinite(depth_a) & (depth_a > 0)
    depth = torch.where(known, depth_a, torch.ones_like(depth_a)).flatten(1)
    points = transform_points(b_from_a, backproject(pixels, depth, intrinsics_a))
    flow = project(points, intrinsics_b)
    z = points[..., 2]
    grid = ((2 * flow + 1) / flow.new_tensor([width, height]) - 1)[:, None]
    usable = torch.nan_to_num(depth_b, 0.0, 0.0, 0.0)[:, None]
    seen = F.grid_sample(usable, grid, "nearest", "zeros", align_corners=False)[:, 0, 0]
    inside = ((flow >= 0) & (flow <= flow.new_tensor([width - 1, height - 1]))).all(-1)
    visible = known.flatten(1) & inside & (z > 1e-3) & ((seen - z).abs() < 0.03 * z)
    return flow.reshape(n, height, width, 2), visible.reshape(n, height, width)


def _take(maps: Float[Tensor, "n height width *channels"], index: Tensor) -> Tensor:
    """Values (n, k, ...) of maps at flat pixel indices (n, k)."""
    flat = maps.flatten(1, 2)
    return flat.gather(1, index.reshape(*index.shape, *[1] * (flat.dim() - 2)).expand(*index.shape, *flat.shape[2:]))


def _draw(weights: Float[Tensor, "n height width"], count: int, generator: torch.Generator) -> Tensor:
    """Flat indices (n, count) of pixels, without repeats, by the given odds (Gumbel top-k); zeros come last."""
    uniform = torch.rand(weights.shape, generator=generator, device=weights.device).clamp(min=1e-9)
    keys = weights.clamp(min=1e-12).log() - (-uniform.log()).clamp(min=1e-9).log()
    return keys.flatten(1).topk(count, dim=1).indices


def training_points(pairs: DensePairs, count: int, generator: torch.Generator) -> Batch:
    """Correspondences, mostly at corners as at test time, and distractors: corners of either image.

    ``points_a``/``points_b`` (n, count, 2) with ``weight`` (n, count); ``others_a``/``others_b`` (n, count, 2).
    Positions are jittered by a pixel, as detected keypoints are.
    """
    height, width = pairs.valid.shape[1:]
    corners = corner_response(torch.cat([pairs.images_a, pairs.images_b]))
    odds = corners / corners.mean((1, 2), keepdim=True).clamp(min=1e-6) + 0.2
    odds_a, odds_b = odds.chunk(2)
    grid = pixel_grid(height, width, odds.device).expand(len(odds_a), -1, -1, -1)
    chosen = _draw(odds_a * pairs.valid, count, generator)
    others_a, others_b = (_take(grid, _draw(each, count, generator)) for each in (odds_a, odds_b))

    def jitter() -> Tensor:
        return torch.randn((len(grid), count, 2), generator=generator, device=grid.device) * 0.7

    return {
        "points_a": _take(grid, chosen) + jitter(),
        "points_b": torch.nan_to_num(_take(pairs.flow, chosen), 0.0, 0.0, 0.0) + jitter(),
        "weight": _take(pairs.valid.float(), chosen),
        "others_a": others_a,
        "others_b": others_b,
    }


def matching_logits(features: ConvFeatures, batch: Batch) -> tuple[Tensor, Tensor]:
    """Scores (n, k, k + others) of every point against the other image, from a and from b; truth on the diagonal.

    Candidates near the truth or without one (weight 0) are left out.
    """
    maps_a, maps_b = features.descriptors.chunk(2)
    keep = batch["weight"] > 0
    logits = []
    for own_map, own, other_map, other, others in (
        (maps_a, batch["points_a"], maps_b, batch["points_b"], batch["others_b"]),
        (maps_b, batch["points_b"], maps_a, batch["points_a"], batch["others_a"]),
    ):
        candidates = torch.cat([other, others], 1)
        queries, keys = sample_descriptors(own_map, own), sample_descriptors(other_map, candidates)
        scores = queries @ keys.transpose(1, 2) / _TEMPERATURE
        count = own.shape[1]
        near = torch.cdist(other, candidates) < _TOO_CLOSE
        near[:, :, :count] |= ~keep[:, None]
        near[:, :, :count] &= ~torch.eye(count, dtype=torch.bool, device=near.device)
        logits.append(scores.masked_fill(near, -1e4))
    return logits[0], logits[1]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


def matching_losses(features: ConvFeatures, batch: Batch) -> dict[str, Tensor]:
    """InfoNCE both ways (van den Oord et al. 2018) and, for the reliability, cross-entropy with 'it was found'."""
    from_a, from_b = matching_logits(features, batch)
    truth = torch.arange(from_a.shape[1], device=from_a.device).expand(from_a.shape[:2])
    weight = batch["weight"]
    nce = (
        F.cross_entropy(from_a.flatten(0, 1), truth.flatten(), reduction="none")
        + F.cross_entropy(from_b.flatten(0, 1), truth.flatten(), reduction="none")
    ).reshape(weight.shape) / 2
    found = ((from_a.argmax(2) == truth) & (from_b.argmax(2) == truth)).float()
    doubt = torch.zeros_like(weight)
    for logits, points in zip(features.reliability.chunk(2), (batch["points_a"], batch["points_b"]), strict=True):
        sampled = sample_map(logits[:, None], points)[..., 0]
        doubt = doubt + F.binary_cross_entropy_with_logits(sampled, found, reduction="none") / 2
    return {"matching": _mean(nce, weight), "reliability": _mean(doubt, weight), "found": _mean(found, weight)}


def depth_losses(features: ConvFeatures, depth: Float[Tensor, "n height width"]) -> dict[str, Tensor]:
    """Log-depth up to scale: Laplace likelihood with the predicted scale, and its gradients at three scales.

    The offset of each image is the median difference; gradient term: Li and Snavely, MegaDepth, CVPR 2018. Unknown
    depth is 0 or not finite and counts for nothing.
    """
    target = depth[:, 1::STRIDE, 1::STRIDE]
    known = torch.isfinite(target) & (target > 0)
    difference = features.log_depth - torch.where(known, target, torch.ones_like(target)).log()
    offset = torch.where(known, difference.detach(), torch.nan).flatten(1).nanmedian(1).values
    residual = torch.where(known, difference - torch.nan_to_num(offset)[:, None, None], 0.0)
    weight = known.float()
    likelihood = _mean(residual.abs() * torch.exp(-features.log_scale) + features.log_scale, weight)
    edges = residual.new_zeros(())
    for step in (1, 2, 4):
        r, w = residual[:, ::step, ::step], weight[:, ::step, ::step]
        edges = edges + _mean((r[:, 1:] - r[:, :-1]).abs(), w[:, 1:] * w[:, :-1])
        edges = edges + _mean((r[:, :, 1:] - r[:, :, :-1]).abs(), w[:, :, 1:] * w[:, :, :-1])
    return {"depth": likelihood, "edges": edges, "depth_error": _mean(residual.abs(), weight).detach()}


class _ScenePool:
    """Groups of rendered scenes by number; only those that pairs are drawn from are kept."""

    def __init__(self, config: ComposedConfig, textures: Path, split: Split):
        self.config, self.split = config, split
        self.textures = load_textures(textures, split=split)
        self.groups: dict[int, RenderedViews] = {}

    def group(self, number: int, device: torch.device) -> RenderedViews:
        """Group ``number``, rendered at first use."""
        if number not in self.groups:
            c = self.config
            textures = self.textures.to(device)
            self.groups[number] = render_scenes(
                number, c.scenes, c.views, c.side, c.side, textures=textures, device=device
            )
        return self.groups[number]

    def pairs(self, first: int, count: int, generator: torch.Generator) -> tuple[DensePairs, Tensor, Tensor]:
        """``count`` random pairs of groups ``first`` ... ``first + pool - 1`` and the depths of both views."""
        c, device = self.config, generator.device
        self.groups = {number: group for number, group in self.groups.items() if 0 <= number - first < c.pool}
        members = []
        picks = torch.rand((count, 4), generator=torch.Generator().manual_seed(generator.initial_seed())).tolist()
        for where, scene, one, two in picks:
            views = self.group(first + int(where * c.pool), device)
            s, a = int(scene * c.scenes), int(one * c.views)
            b = (a + 1 + int(two * (c.views - 1))) % c.views
            members.append(
                [
                    x[s, v]
                    for v in (a, b)
                    for x in (views.images, views.depth, views.intrinsics, views.world_from_camera)
                ]
            )
        image_a, depth_a, k_a, world_a, image_b, depth_b, k_b, world_b = (
            torch.stack(column) for column in zip(*members, strict=True)
        )
        flow, valid = correspondences(depth_a, depth_b, k_a, k_b, invert_rigid(world_b) @ world_a)
        return DensePairs(image_a, image_b, flow, valid), depth_a, depth_b


class ComposedRecipe:
    """Recipe (see ``unposed.train.recipe``) for the network of ``unposed.models.composed``."""

    name = "composed"
    optimisation = Optimisation(learning_rate=1.5e-3, weight_decay=0.01, warmup=0.02)

    def __init__(self, textures: Path, config: ComposedConfig | None = None):
        """``textures``: folder with tile_*, photo_* and pano_* images."""
        self.config = config or ComposedConfig()
        self.folder = textures
        self.photos = load_photos(textures, validation=False)
        self.scenes = _ScenePool(self.config, textures, "train")

    def build(self) -> nn.Module:
        """A fresh network; channels-last, which is what a CPU convolves fastest."""
        torch.manual_seed(0)
        return ConvNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batch(self, step: int, progress: float, device: torch.device) -> Batch:
        """Half homographies, half rendered; the homographies get harder over the first third."""
        generator = torch.Generator(device).manual_seed(1_000_003 + step)
        strength = min(1.0, 0.4 + 2 * progress)
        photos = self.photos.to(device)
        warped = homography_pairs(photos, self.config.warped, self.config.side, strength, generator)
        rendered = self.scenes.pairs(step // self.config.renew, self.config.rendered, generator)
        return self._assemble(warped, rendered, strength, generator)

    def _assemble(
        self,
        warped: DensePairs,
        rendered: tuple[DensePairs, Tensor, Tensor],
        strength: float,
        generator: torch.Generator,
    ) -> Batch:
        scene, depth_a, depth_b = rendered
        pairs = DensePairs(
            torch.cat([warped.images_a, scene.images_a]),
            torch.cat([warped.images_b, scene.images_b]),
            torch.cat([warped.flow, scene.flow]),
            torch.cat([warped.valid, scene.valid]),
        )
        unknown = torch.zeros_like(warped.valid, dtype=torch.float32)
        images = photometric(torch.cat([pairs.images_a, pairs.images_b]), strength, generator)
        images_a, images_b = images.chunk(2)
        pairs = DensePairs(images_a, images_b, pairs.flow, pairs.valid)
        return {
            "images_a": images_a,
            "images_b": images_b,
            "depth_a": torch.cat([unknown, depth_a]),
            "depth_b": torch.cat([unknown, depth_b]),
            **training_points(pairs, self.config.points, generator),
        }

    @functools.cached_property
    def _validation(self) -> Batch:
        """Held-out photos and scenes with held-out textures, fixed by seed."""
        config = self.config
        generator = torch.Generator().manual_seed(77)
        photos = load_photos(self.folder, validation=True)
        warped = homography_pairs(photos, config.validation, config.side, 1.0, generator)
        scenes = _ScenePool(config, self.folder, "validation")
        return self._assemble(warped, scenes.pairs(_VALIDATION_SEED, config.validation, generator), 1.0, generator)

    def _forward(self, model: nn.Module, batch: Batch) -> ConvFeatures:
        images = torch.cat([batch["images_a"], batch["images_b"]]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16):
            return model(images)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """``total`` and its parts; the network in bfloat16, the losses in float32."""
        features = self._forward(model, batch)
        with torch.autocast(batch["images_a"].device.type, enabled=False):
            losses = matching_losses(features, batch)
            losses |= depth_losses(features, torch.cat([batch["depth_a"], batch["depth_b"]]))
            losses["total"] = (
                losses["matching"] + 0.3 * losses["reliability"] + 0.3 * losses["depth"] + 0.3 * losses["edges"]
            )
        return losses

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Share of points found by mutual nearest neighbours, reliability loss, and errors of the scaled depth."""
        batch = {name: value.to(device) for name, value in self._validation.items()}
        count = self.config.validation
        numbers: dict[str, float] = {}
        for kind, rows in (("photos", slice(0, count)), ("scenes", slice(count, None))):
            part = {name: value[rows] for name, value in batch.items()}
            features = self._forward(model, part)
            losses = matching_losses(features, part)
            numbers |= {f"{kind}_{name}": float(value) for name, value in losses.items()}
            if kind == "scenes":
                depth = torch.cat([part["depth_a"], part["depth_b"]])
                numbers |= {name: float(value) for name, value in depth_losses(features, depth).items()}
        return numbers

    @torch.no_grad()
    def preview(self, model: nn.Module, device: torch.device) -> UInt8[np.ndarray, "height width 3"]:
        """Rows: a validation image, reliability, predicted and true log-depth (near is bright)."""
        count = self.config.validation
        batch = {name: value[count : count + 4].to(device) for name, value in self._validation.items()}
        features = self._forward(model, batch)
        rows = []
        for k in range(len(batch["images_a"])):
            truth = batch["depth_a"][k].clamp(min=1e-3).log()
            offset = (F.interpolate(features.log_depth[None, k : k + 1], truth.shape)[0, 0] - truth).median()
            low, high = truth.quantile(0.02), truth.quantile(0.98)
            maps = [features.reliability[k].sigmoid()]
            maps += [1 - (x - low) / (high - low).clamp(min=1e-3) for x in (features.log_depth[k] - offset, truth)]
            grey = [F.interpolate(x[None, None], truth.shape)[0].expand(3, -1, -1) for x in maps]
            rows.append(torch.cat([batch["images_a"][k], *grey], 2))
        return (torch.cat(rows, 1).clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy()

    def metadata(self) -> dict[str, Any]:
        """Of the exported file."""
        return {"system": "composed", "config": {}, "card": "docs/models/mini.md"}
