"""The composed pair model: learned descriptors, robust two-view geometry, single-view depth where stereo is blind.

One small convolutional network looks at every view once. A pair is solved as the weight-free model solves it (matches,
one focal for the collection, LO-RANSAC, plane sweep), but its keypoints carry learned descriptors beside RootSIFT, and
pixels that the sweep cannot see get the network's depth, fitted to what the sweep can. Lengths of a pair are in units
of its baseline.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unposed.errors import UserError
from unposed.geometry.cameras import intrinsics_matrix, pixel_grid, pointmap_from_depth
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.io.checkpoints import Checkpoint, read_checkpoint
from unposed.io.resize import ImageRule
from unposed.models import sift
from unposed.models.classic import agree_on_focals
from unposed.models.plane_sweep import SweptDepth, sweep_both
from unposed.models.two_view import TwoView, estimate_two_view
from unposed.nets.convnet import ConvNet, sample_descriptors
from unposed.views import Matches, Pair, PairPrediction, View

KEYPOINTS = 4096
CLASSIC_SHARE = 0.5
"""Share of RootSIFT in the similarity of two keypoints; the rest is learned. Chosen on held-out synthetic pairs."""
RATIO = 0.9
"""Largest ratio of the distances to the nearest and the second nearest descriptor."""
DEPTH_LONG_SIDE = 224
"""Long side of the image whose depth the network estimates: near the field of view that it was trained on."""
TOP_CONFIDENCE = 10.0
MANY_INLIERS = 150
WIDE_ANGLE = math.radians(4)
SINGLE_VIEW_CONFIDENCE = 0.02
"""Added to the confidence of 1 where only the single-view depth speaks, as a share of what stereo would add."""


@dataclass(frozen=True, eq=False)
class ViewFeatures:
    """What the network and the keypoint detector say of one view."""

    keypoints: sift.Keypoints
    log_depth: Float[Tensor, "height width"]
    """Single-view log-depth of every pixel of the view, up to a constant."""


@dataclass(frozen=True, eq=False)
class _Solved:
    """What is known of an unordered pair: depth and confidence of each view, and the pose between them."""

    depths: tuple[Float[Tensor, "height_i width_i"], Float[Tensor, "height_j width_j"]]
    confidences: tuple[Float[Tensor, "height_i width_i"], Float[Tensor, "height_j width_j"]]
    focals: tuple[float, float]
    j_from_i: Float[Tensor, "4 4"]
    matches: Matches

    def prediction(self, swapped: bool) -> PairPrediction:
        """The pair as seen from camera i or, swapped, from camera j."""
        one, other = (1, 0) if swapped else (0, 1)
        first_from_second = self.j_from_i if swapped else invert_rigid(self.j_from_i)
        first, second = (_lift(self.depths[k], self.focals[k]) for k in (one, other))
        points = (self.matches.points_a, self.matches.points_b)
        return PairPrediction(
            points_i=first,
            points_j=transform_points(first_from_second, second),
            confidence_i=self.confidences[one],
            confidence_j=self.confidences[other],
            matches=Matches(points[one], points[other], self.matches.confidence),
        )


class Composed:
    """``PairModel`` of a small convolutional network and two-view geometry."""

    name = "composed"
    image_rule = ImageRule(size=640, square_ok=True)
    metric = False

    def __init__(self, network: ConvNet, device: torch.device | str = "cpu") -> None:
        """The network is put in evaluation mode on ``device``; geometry runs on the CPU."""
        self.device = torch.device(device)
        self.network = network.eval().requires_grad_(False).to(self.device)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> "Composed":
        """Build from a checkpoint whose ``system`` is ``composed``.

        Raises:
            UserError: it is of another system, or its tensors do not fit its configuration.
        """
        if checkpoint.extra.get("system") != "composed":
            raise UserError(f"{checkpoint.path} holds no composed model; give the file that its training exported.")
        config: dict[str, Any] = checkpoint.extra.get("config", {})
        network = ConvNet(tuple(config["widths"]), config["channels"]) if config else ConvNet()
        try:
            network.load_state_dict({name: tensor.float() for name, tensor in checkpoint.tensors.items()})
        except RuntimeError as error:
            raise UserError(f"{checkpoint.path} does not hold the tensors that it should: {error}") from error
        return cls(network, device)

    @classmethod
    def from_file(cls, path: str | Path, device: torch.device | str = "cpu") -> "Composed":
        """Read a safetensors file. Raises ``UserError`` as ``from_checkpoint`` and ``read_checkpoint`` do."""
        return cls.from_checkpoint(read_checkpoint(path), device)

    @torch.inference_mode()
    def encode(self, views: Sequence[View]) -> list[ViewFeatures]:
        """Keypoints with descriptors, and the single-view depth, of each view."""
        return [self._encode_one(view) for view in views]

    def _encode_one(self, view: View) -> ViewFeatures:
        image = (view.image.to(self.device).permute(2, 0, 1)[None].float() / 255).contiguous(
            memory_format=torch.channels_last
        )
        detected = sift.detect(view.image, limit=KEYPOINTS)
        maps = self.network(image).descriptors
        learned = sample_descriptors(maps, detected.points[None].to(self.device))[0].cpu()
        both = [learned * (1 - CLASSIC_SHARE) ** 0.5, detected.descriptors * CLASSIC_SHARE**0.5]
        keypoints = sift.Keypoints(detected.points, torch.cat(both, 1))
        return ViewFeatures(keypoints, self._log_depth(image))

    def _log_depth(self, image: Float[Tensor, "1 3 height width"]) -> Float[Tensor, "height width"]:
        size = image.shape[-2:]
        scale = DEPTH_LONG_SIDE / max(size)
        small = F.interpolate(image, size=[max(16, round(side * scale)) for side in size], mode="area")
        log_depth = self.network(small).log_depth[:, None]
        return F.interpolate(log_depth, size=size, mode="bilinear", align_corners=False)[0, 0].cpu()

    def decode(
        self, views: Sequence[View], features: Sequence[ViewFeatures], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairPrediction]]:
        """Predictions for ordered pairs; the focals are agreed on over all pairs, (i, j) and (j, i) share work."""
        asked: dict[Pair, list[Pair]] = defaultdict(list)
        for i, j in pairs:
            asked[min(i, j), max(i, j)].append((i, j))
        keypoints = [feature.keypoints for feature in features]
        found = {(i, j): sift.match(keypoints[i], keypoints[j], RATIO) for i, j in asked if i != j}
        points = {
            (i, j): (keypoints[i].points[rows[:, 0]], keypoints[j].points[rows[:, 1]]) for (i, j), rows in found.items()
        }
        focals = agree_on_focals(views, points)
        none = torch.zeros(0, 2, dtype=torch.long)
        for (i, j), orders in asked.items():
            pair = (views[i], views[j]), (features[i], features[j]), (focals[i], focals[j])
            solved = _solve(*pair, found.get((i, j), none))
            for order in dict.fromkeys(orders):
                yield order, solved.prediction(swapped=order != (i, j))


def _solve(
    views: tuple[View, View],
    features: tuple[ViewFeatures, ViewFeatures],
    focals: tuple[float, float],
    found: Int[Tensor, "n 2"],
) -> _Solved:
    """Pose by the matches, depth by plane sweep and single view; by single view alone where there is no baseline."""
    a, b = features[0].keypoints, features[1].keypoints
    points_i, points_j = a.points[found[:, 0]], b.points[found[:, 1]]
    geometry = estimate_two_view(points_i, points_j, views[0].size, views[1].size, *focals)
    if geometry is None:
        return _without_baseline(features, focals, torch.eye(4), found[:0])
    found = found[geometry.inliers]
    if geometry.rotation_only:
        return _without_baseline(features, focals, geometry.j_from_i.float(), found)
    swept = sweep_both(views[0].image, views[1].image, *focals, geometry.j_from_i, geometry.points)
    strength = _strength(geometry)
    depths = [complete(one, feature.log_depth) for one, feature in zip(swept, features, strict=True)]
    confidences = [1 + strength * one.support.clamp(min=SINGLE_VIEW_CONFIDENCE) for one in swept]
    return _Solved(
        depths=(depths[0], depths[1]),
        confidences=(confidences[0], confidences[1]),
        focals=focals,
        j_from_i=geometry.j_from_i.float(),
        matches=_matches(a, b, found),
    )


def _without_baseline(
    features: tuple[ViewFeatures, ViewFeatures],
    focals: tuple[float, float],
    j_from_i: Float[Tensor, "4 4"],
    found: Int[Tensor, "n 2"],
) -> _Solved:
    """Single-view depths of median 1, the second scaled to agree at the matches, turned as the pose says."""
    turned = j_from_i.clone()
    turned[:3, 3] = 0
    log_depths = [feature.log_depth - feature.log_depth.median() for feature in features]
    matches = _matches(features[0].keypoints, features[1].keypoints, found)
    if len(found):
        at_i, at_j = (
            log_depth[points[:, 1].round().long(), points[:, 0].round().long()]
            for log_depth, points in zip(log_depths, (matches.points_a, matches.points_b), strict=True)
        )
        log_depths[1] = log_depths[1] + (at_i - at_j).median()
    confidences = [torch.full_like(log_depth, 1.01) for log_depth in log_depths]
    return _Solved(
        depths=(log_depths[0].exp(), log_depths[1].exp()),
        confidences=(confidences[0], confidences[1]),
        focals=focals,
        j_from_i=turned,
        matches=matches,
    )


def complete(swept: SweptDepth, log_depth: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """Swept depth where it has support, elsewhere the single-view depth bent to it by a low-order correction.

    The correction of the log-depth is a scale and a plane over the image, fitted by iteratively reweighted least
    squares (Huber weights of 0.1) to the supported pixels.
    """
    height, width = log_depth.shape
    step = max(1, max(height, width) // 160)
    weight = swept.support[::step, ::step].flatten()
    if not float(weight.sum()) > 0:
        return swept.depth
    grid = pixel_grid(height, width) / max(height, width)
    terms = torch.stack([torch.ones_like(log_depth), log_depth - log_depth.mean(), *grid.unbind(-1)], -1)
    few = terms[::step, ::step].reshape(-1, 4).double()
    target = swept.depth.log()[::step, ::step].flatten().double()
    prior = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    hold = torch.tensor([1e-6, 0.05, 0.05, 0.05], dtype=torch.float64).diag() * float(weight.sum())
    solution = prior.clone()
    solution[0] = (target - few @ prior)[weight > 0].median()
    for _ in range(8):
        error = (target - few @ solution).abs()
        w = weight.double() * (0.1 / error.clamp(min=0.1))
        normal = (few * w[:, None]).T @ few + hold
        solution = torch.linalg.solve(normal, (few * w[:, None]).T @ target + hold @ prior)
    single = terms @ solution.float()
    share = (swept.support / 0.3).clamp(max=1)
    return torch.exp(share * swept.depth.log() + (1 - share) * single)


def _lift(depth: Float[Tensor, "height width"], focal: float) -> Float[Tensor, "height width 3"]:
    height, width = depth.shape
    return pointmap_from_depth(depth, intrinsics_matrix(focal, torch.tensor([(width - 1) / 2, (height - 1) / 2])))


def _strength(geometry: TwoView) -> float:
    """What full support adds to the confidence: much for many inliers seen under wide angles, almost none if unsafe."""
    if not geometry.reliable:
        return 0.01
    angle = float(geometry.angles.median())
    return (TOP_CONFIDENCE - 1) * min(1.0, len(geometry.points) / MANY_INLIERS) * min(1.0, angle / WIDE_ANGLE)


def _matches(a: sift.Keypoints, b: sift.Keypoints, found: Int[Tensor, "n 2"]) -> Matches:
    """Matched keypoints; a keypoint has the same coordinates in every pair, so that tracks can be built from them."""
    confidence = (a.descriptors[found[:, 0]] * b.descriptors[found[:, 1]]).sum(-1)
    return Matches(a.points[found[:, 0]], b.points[found[:, 1]], confidence)
