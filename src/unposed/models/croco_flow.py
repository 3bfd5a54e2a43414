"""CroCo-Stereo and CroCo-Flow behind the protocols of ``models/flow.py`` (CroCo v2, section 3.4)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unposed.errors import UserError
from unposed.models.croco import IMAGE_MEAN, IMAGE_STD, StereoFlow
from unposed.models.flow import DisparityPrediction, FlowPrediction, Picture
from unposed.models.registry import load_croco
from unposed.models.tiling import predict_tiled
from unposed.views import Pair

OVERLAP = 0.7
"""Share by which neighbouring tiles overlap at least."""


def expected_error(raw: Float[Tensor, "*shape"], criterion: str) -> Float[Tensor, "*shape"]:
    """Scale in pixels of the Laplacian that a raw confidence stands for under the loss of its training.

    The losses with their released constants are in section 3.4 of CroCo v2.

    Raises:
        UserError: a loss without confidence.
    """
    if criterion == "LaplacianLoss":
        return raw.exp()
    if criterion == "LaplacianLossBounded":
        return 3.75 * torch.sigmoid(raw) + 0.25
    if criterion == "LaplacianLossBounded2":
        return torch.exp(6 * (torch.sigmoid(raw / 3) - 0.5))
    raise UserError(f"This checkpoint was trained with {criterion}, which tells no confidence; give a released file.")


class _CrocoDisplacement:
    """A released file of one task, run tile by tile."""

    task: str

    def __init__(self, model: StereoFlow, name: str) -> None:
        self.model, self.name = model, name

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Self:
        """Read a released file.

        Raises:
            UserError: the file is damaged, refused, or of another kind.
        """
        loaded = load_croco(path, device)
        if not isinstance(loaded, StereoFlow) or loaded.task != cls.task:
            kind = f"for {loaded.task}" if isinstance(loaded, StereoFlow) else "a pre-training network"
            raise UserError(f"{path} is {kind}; this needs a CroCo checkpoint for {cls.task}.")
        return cls(loaded, Path(path).stem)

    def _displacements(
        self, a: Picture, b: Picture
    ) -> tuple[Float[Tensor, "channels height width"], Float[Tensor, "height width"]]:
        """The map of picture a and its confidence."""
        device = next(self.model.network.parameters()).device
        images = [_normalised(picture).to(device) for picture in (a, b)]
        found, raw = predict_tiled(
            self.model.network, images[0], images[1], self.model.window, OVERLAP, self.model.confidence_mode
        )
        confidence = 1 / (1 + expected_error(raw, self.model.criterion))
        confidence = F.interpolate(confidence[:, None], size=a.shape[:2], mode="bilinear")[0, 0]
        return found[0].cpu(), confidence.cpu()


class CrocoStereo(_CrocoDisplacement):
    """Disparity by a released CroCo-Stereo file."""

    task = "stereo"

    def estimate_disparity(self, left: Picture, right: Picture, largest: float) -> DisparityPrediction:
        """As the protocol says; the network needs no range. What it finds left of zero is unknown."""
        found, confidence = self._displacements(left, right)
        known = found[0] > 0
        return DisparityPrediction(torch.where(known, found[0], 0.0), torch.where(known, confidence, 0.0))


class CrocoFlow(_CrocoDisplacement):
    """Optical flow by a released CroCo-Flow file."""

    task = "flow"

    def estimate_flow(
        self, pictures: Sequence[Picture], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, FlowPrediction]]:
        """As the protocol says."""
        for a, b in pairs:
            found, confidence = self._displacements(pictures[a], pictures[b])
            yield (a, b), FlowPrediction(found.permute(1, 2, 0).contiguous(), confidence)


def _normalised(picture: Picture) -> Float[Tensor, "1 3 height width"]:
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    return ((picture / 255 - mean) / std).permute(2, 0, 1)[None]
