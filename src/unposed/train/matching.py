"""The matching term: contrastive loss between descriptors at true correspondences (MASt3R, ECCV 2024, section 3.3).

Also finds the true correspondences of a rendered or measured pair, on the device, without reading anything back.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unposed.geometry.cameras import pointmap_from_depth, project
from unposed.train.losses import Loss, masked_mean

InfoNceMode = Literal["all", "proper", "dual"]
Similarity = Literal["dot", "euclidean"]


class Correspondences(NamedTuple):
    """Row-major pixel indices in both views; entries that are not ``valid`` do not correspond: they are negatives."""

    pixels_1: Int[Tensor, "batch n"]
    pixels_2: Int[Tensor, "batch n"]
    valid: Bool[Tensor, "batch n"]


def covisible_pixels(
    depth_1: Float[Tensor, "*batch h1 w1"],
    depth_2: Float[Tensor, "*batch h2 w2"],
    intrinsics_1: Float[Tensor, "*batch 3 3"],
    intrinsics_2: Float[Tensor, "*batch 3 3"],
    camera_2_from_1: Float[Tensor, "*batch 4 4"],
    tolerance: float = 0.02,
) -> tuple[Int[Tensor, "*batch pixels_1"], Bool[Tensor, "*batch pixels_1"]]:
    """For every pixel of view 1, the nearest pixel of view 2 (row-major index) and whether both see the same point.

    The same point: inside view 2, in front of it, and within ``tolerance`` of its z-depth there. Depth 0 is unknown.
    """
    height, width = depth_2.shape[-2:]
    points = pointmap_from_depth(depth_1, intrinsics_1).flatten(-3, -2)
    points = points @ camera_2_from_1[..., :3, :3].transpose(-1, -2) + camera_2_from_1[..., None, :3, 3]
    x, y = project(points, intrinsics_2).round().unbind(-1)
    z = points[..., 2]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (z > 1e-6)
    index = y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()
    seen = depth_2.flatten(-2).gather(-1, index)
    same = (seen - z).abs() < tolerance * seen  # false where depth_2 is unknown
    return index, inside & same & (depth_1.flatten(-2) > 0)


def sample_correspondences(
    index: Int[Tensor, "batch pixels"],
    covisible: Bool[Tensor, "batch pixels"],
    count: int,
    generator: torch.Generator,
    positives: float = 0.75,
) -> Correspondences:
    """``count`` random pixels of view 1 with their partners: ``positives`` of them covisible where there are enough.

    The rest are pixels without a partner, paired with whatever pixel they fall on and marked invalid.
    """
    lottery = torch.rand(covisible.shape, generator=generator, device=covisible.device)
    wanted = round(count * positives)
    first = (lottery + covisible).topk(wanted, dim=1).indices
    rest = (lottery + ~covisible).topk(count - wanted, dim=1).indices
    pixels = torch.cat([first, rest], 1)
    return Correspondences(pixels, index.gather(1, pixels), covisible.gather(1, pixels))


def similarities(
    first: Float[Tensor, "batch n channels"], second: Float[Tensor, "batch m channels"], kind: Similarity = "dot"
) -> Float[Tensor, "batch n m"]:
    """Dot products (of unit descriptors), or 1 / (1 + Euclidean distance) (of points)."""
    if kind == "dot":
        return first @ second.transpose(1, 2)
    return 1 / (1 + torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist"))


def info_nce(
    descriptors_1: Float[Tensor, "batch n channels"],
    descriptors_2: Float[Tensor, "batch n channels"],
    temperature: float = 0.05,
    mode: InfoNceMode = "proper",
    kind: Similarity = "dot",
) -> Float[Tensor, "batch n"]:
    """Per-correspondence cross-entropy of finding the true partner among all n of its pair (MASt3R, equation 10).

    ``proper`` sums the terms of both directions; ``dual`` takes the product of both probabilities under one logarithm;
    ``all`` normalises over the whole matrix. Probabilities are clamped at 1e-8. In float32.
    """
    similarity = similarities(descriptors_1.float(), descriptors_2.float(), kind) / temperature
    positive = similarity.diagonal(dim1=1, dim2=2)
    if mode == "all":
        return _clamped(similarity.flatten(1).logsumexp(1, keepdim=True) - positive)
    forward, backward = similarity.logsumexp(2) - positive, similarity.logsumexp(1) - positive
    return _clamped(forward) + _clamped(backward) if mode == "proper" else _clamped(forward + backward)


def _clamped(surprise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``-log(max(p, 1e-8))`` from ``-log p``."""
    return surprise.clamp(max=8 * 2.302585092994046)


def average_precision(
    descriptors_1: Float[Tensor, "batch n channels"],
    descriptors_2: Float[Tensor, "batch n channels"],
    others_2: Float[Tensor, "batch m channels"] | None = None,
    known: Bool[Tensor, "batch m"] | None = None,
    kind: Similarity = "dot",
) -> Float[Tensor, "batch n"]:
    """1 / rank of the true partner among all n and, where given, ``others_2`` (those ``known``); no gradient.

    With one true partner per query this is the average precision, MASt3R's test criterion (one minus its mean).
    """
    with torch.no_grad():
        scores = similarities(descriptors_1, descriptors_2, kind)
        true = scores.diagonal(dim1=1, dim2=2)[..., None]
        better = (scores > true).sum(2)
        if others_2 is not None:
            ahead = similarities(descriptors_1, others_2, kind) > true
            better = better + (ahead if known is None else ahead & known[:, None]).sum(2)
        return 1 / (1.0 + better)


def unmatched_pixels(pixels: Int[Tensor, "batch n"], count: int, most: int) -> Bool[Tensor, "batch count"]:
    """The first ``most`` of ``count`` pixels, in raster order, that are in no correspondence."""
    free = torch.ones(len(pixels), count, dtype=torch.bool, device=pixels.device).scatter(1, pixels, False)
    return free & (free.cumsum(1) <= most)


@dataclass(frozen=True)
class Matching:
    """InfoNCE at true correspondences, weighted by the descriptor confidence q: mean of ``q l - alpha ln q``.

    MASt3R, equation 10 and the released recipe: q is the mean of both pixels' confidences.
    """

    temperature: float = 0.05
    mode: InfoNceMode = "proper"
    kind: Similarity = "dot"
    alpha: float | None = 10.0
    """Weight of the reward for being confident; None leaves confidence out."""
    confidence_product: bool = False
    """q is the product of both pixels' confidences instead of their mean."""
    negative_quantile: float | None = None
    """Teach pixels without a partner to be unsure: their loss counts as this quantile of those that have one."""
    block: int | None = None
    """Correspondences that compete; their number is a multiple of it. None: all of a pair."""

    def __call__(
        self,
        descriptors: tuple[Float[Tensor, "batch h1 w1 channels"], Float[Tensor, "batch h2 w2 channels"]],
        confidence: tuple[Float[Tensor, "batch h1 w1"], Float[Tensor, "batch h2 w2"]] | None,
        truth: Correspondences,
        order: Int[Tensor, "batch n"] | None = None,
    ) -> Loss:
        """Mean over the valid correspondences of the batch; ``matching`` is its part without weights.

        ``order`` says which correspondences share a block: neighbours in it. Default: a random one.
        """
        if self.block is not None:
            truth = _ordered(truth, order)
        valid = self._blocks(truth.valid)
        first, second = (
            self._blocks(_gather(maps, pixels)) for maps, pixels in zip(descriptors, truth[:2], strict=True)
        )
        terms = info_nce(first, second, self.temperature, self.mode, self.kind)
        plain = masked_mean(terms, valid)
        if self.alpha is None or confidence is None:
            return Loss(plain, {"matching": plain})
        q1, q2 = (
            self._blocks(maps.flatten(1).gather(1, pixels)) for maps, pixels in zip(confidence, truth[:2], strict=True)
        )
        q = q1 * q2 if self.confidence_product else (q1 + q2) / 2
        total = masked_mean(q * terms - self.alpha * q.log(), valid)
        if self.negative_quantile is not None:
            level = torch.where(valid, terms.detach(), torch.nan).nanquantile(self.negative_quantile)
            negatives = [masked_mean(level * each - self.alpha * each.log(), ~valid) for each in (q1, q2)]
            total = total + (negatives[0] + negatives[1]) / 2
        return Loss(total, {"matching": plain, "matching_confidence": masked_mean(q, valid)})

    def _blocks(self, values: Tensor) -> Tensor:
        """Correspondences that compete as a batch of their own."""
        return values if self.block is None else values.reshape(-1, self.block, *values.shape[2:])


def _ordered(truth: Correspondences, order: Int[Tensor, "batch n"] | None) -> Correspondences:
    if order is None:
        order = torch.rand(truth.valid.shape, device=truth.valid.device).argsort(1)
    return Correspondences(*(values.gather(1, order) for values in truth))


def _gather(maps: Float[Tensor, "batch h w c"], pixels: Int[Tensor, "batch n"]) -> Float[Tensor, "batch n c"]:
    flat = maps.flatten(1, 2)
    return flat.gather(1, pixels[..., None].expand(-1, -1, flat.shape[-1]))
