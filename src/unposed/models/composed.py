"""The composed pair model: the weight-free geometry, with what a small network learned about every view.

Pairs are solved as ``classic`` solves them (one focal for the collection, LO-RANSAC, plane sweep). The network adds
matches, by descriptors that stand beside SIFT's, and a rough depth for pairs without a baseline. Lengths of a pair are
in units of its baseline.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unposed.errors import UserError
from unposed.io.checkpoints import Checkpoint, read_checkpoint
from unposed.io.resize import ImageRule
from unposed.models import sift
from unposed.models.classic import Classic
from unposed.nets.convnet import ConvNet, sample_descriptors
from unposed.views import Pair, PairPrediction, View

LEARNED_SHARE = 0.5
"""Share of the learned descriptors in the similarity of two keypoints; the rest is SIFT's."""
DEPTH_LONG_SIDE = 224
"""Long side of the image whose depth the network estimates: near the field of view that it was trained on."""


@dataclass(frozen=True, eq=False)
class LearnedKeypoints(sift.Keypoints):
    """Keypoints of a view with the network's unit descriptors of them, and its depth of the view."""

    learned: Float[Tensor, "n 128"]
    """Descriptors at full and at half resolution, each a unit vector times sqrt(1/2)."""
    log_depth: Float[Tensor, "rows columns"]
    """Single-view log-depth up to a constant, over the whole view, at a lower resolution."""


class Composed(Classic):
    """``PairModel`` of a small convolutional network and two-view geometry."""

    image_rule = ImageRule(size=640, square_ok=True)

    def __init__(self, network: ConvNet, device: torch.device | str = "cpu", name: str = "composed") -> None:
        """The network is put in evaluation mode on ``device``; geometry runs on the CPU. ``name``: as it was loaded."""
        self.name = name
        self.device = torch.device(device)
        self.network = network.eval().requires_grad_(False).to(self.device)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, device: torch.device | str = "cpu", name: str = "composed"
    ) -> "Composed":
        """Build from a checkpoint whose ``system`` is ``composed``; ``name`` is what users know it by.

        Raises:
            UserError: it is of another system, or its tensors do not fit its configuration.
        """
        if checkpoint.extra.get("system") != "composed":
            raise UserError(f"{checkpoint.path} holds no composed model; give the file that its training exported.")
        config: dict[str, Any] = checkpoint.extra.get("config", {})
        try:
            network = ConvNet(**config)
            network.load_state_dict({name: tensor.float() for name, tensor in checkpoint.tensors.items()})
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{checkpoint.path} does not hold the tensors of a composed model ({error}); train or get it again."
            ) from error
        return cls(network, device, name)

    @classmethod
    def from_file(cls, path: str | Path, device: torch.device | str = "cpu") -> "Composed":
        """Read a safetensors file. Raises ``UserError`` as ``from_checkpoint`` and ``read_checkpoint`` do."""
        return cls.from_checkpoint(read_checkpoint(path), device, Path(path).stem)

    @torch.inference_mode()
    def encode(self, views: Sequence[View]) -> list[sift.Keypoints]:
        """Keypoints of each view with both kinds of descriptors, and its single-view depth."""
        return [self._encode_one(view) for view in views]

    def _encode_one(self, view: View) -> LearnedKeypoints:
        found = sift.detect(view.image)
        image = view.image.to(self.device).permute(2, 0, 1)[None].float() / 255
        places = found.points[None].to(self.device)
        learned = []
        for scale in (1.0, 0.5):
            scaled = F.interpolate(image, scale_factor=scale, mode="area") if scale < 1 else image
            maps = self.network(scaled).descriptors
            learned.append(sample_descriptors(maps, (places + 0.5) * scale - 0.5)[0].cpu() * 0.5**0.5)
        return LearnedKeypoints(found.points, found.descriptors, torch.cat(learned, 1), self.expected_depth(view))

    @torch.inference_mode()
    def expected_depth(self, view: View) -> Float[Tensor, "rows columns"]:
        """Logarithm of the depth that the network expects of a single view, up to a constant, at a lower resolution."""
        image = view.image.to(self.device).permute(2, 0, 1)[None].float() / 255
        shrink = DEPTH_LONG_SIDE / max(view.size)
        small = F.interpolate(image, size=[max(16, round(side * shrink)) for side in view.size], mode="area")
        return self.network(small).log_depth[0].cpu()

    def match(self, a: sift.Keypoints, b: sift.Keypoints) -> Int[Tensor, "n 2"]:
        """Index pairs that SIFT finds, and those found by SIFT and the learned descriptors together."""
        return torch.unique(torch.cat([sift.match(a, b), sift.match(_fused(a), _fused(b))]), dim=0)

    def decode(
        self, views: Sequence[View], features: Sequence[sift.Keypoints], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairPrediction]]:
        """Predictions for ordered pairs as ``Classic`` makes them; flat depths are replaced by single-view ones."""
        for (i, j), prediction in super().decode(views, features, pairs):
            if float(prediction.confidence_i.max()) > 1:
                yield (i, j), prediction
                continue
            depth_i, depth_j = (_depth(features[k], views[k]) for k in (i, j))
            yield (
                (i, j),
                replace(
                    prediction,
                    points_i=prediction.points_i * depth_i[..., None],
                    points_j=prediction.points_j * depth_j[..., None],
                ),
            )


def _fused(keypoints: sift.Keypoints) -> sift.Keypoints:
    """The keypoints with one unit descriptor made of both kinds."""
    assert isinstance(keypoints, LearnedKeypoints)
    both = [keypoints.learned * LEARNED_SHARE**0.5, keypoints.descriptors * (1 - LEARNED_SHARE) ** 0.5]
    return sift.Keypoints(keypoints.points, torch.cat(both, 1))


def _depth(keypoints: sift.Keypoints, view: View) -> Float[Tensor, "height width"]:
    """Single-view depth of every pixel, of median 1."""
    assert isinstance(keypoints, LearnedKeypoints)
    log_depth = keypoints.log_depth - keypoints.log_depth.median()
    return F.interpolate(log_depth[None, None], size=view.size, mode="bilinear", align_corners=False)[0, 0].exp()
