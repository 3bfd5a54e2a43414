"""Recipes for pair networks: the shipped ``mini``, DUSt3R's released size, and fine-tuning on one's own photos."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from unposed.models.dust3r import Dust3r, Dust3rConfig
from unposed.models.mini import SYSTEM, Mini, MiniConfig
from unposed.train.losses import ConfidenceWeighted, PairLoss, PairOutput, PairTruth
from unposed.train.matching import Matching
from unposed.train.metric_losses import MetricRegression
from unposed.train.pairs import correspondences_of, images_of
from unposed.train.posed import PosedPairs
from unposed.train.recipe import Batch, Optimisation
from unposed.train.scenes import ScenePairs, Stage
from unposed.train.validation import ViewMaps, evaluate_pairs, picture

_MIXED = ((288, 384), (384, 288), (256, 384), (384, 256), (208, 384))


class PairSource(Protocol):
    """Where pairs come from: ``ScenePairs`` or ``PosedPairs``."""

    def batch(self, step: int, progress: float, device: torch.device) -> Batch:
        """Training pairs of a step, as ``unposed.train.pairs.pair_batch`` makes them."""
        ...

    def validation(self, device: torch.device) -> Mapping[str, Batch]:
        """Fixed sets by name."""
        ...


@dataclass
class PairRecipe:
    """Confidence-weighted regression of pointmaps and, where the network has descriptors, the matching term."""

    name: str
    network: Callable[[], nn.Module]
    source: PairSource
    facts: dict[str, Any]
    """``system`` and ``config`` for the exported file."""
    forward: Callable[[Any, Batch], tuple[ViewMaps, ViewMaps]]
    """The network on the pairs of a batch: ``every_pair`` or ``every_view_once``."""
    optimisation: Optimisation = field(default_factory=Optimisation)
    regression: PairLoss = field(default_factory=ConfidenceWeighted)
    matching: Matching = field(default_factory=Matching)
    matching_weight: float = 0.075
    """Of the matching term (MASt3R's recipe)."""

    def __post_init__(self) -> None:
        self._validation: dict[torch.device, Mapping[str, Batch]] = {}

    def build(self) -> nn.Module:
        """The network with weights from a fixed seed."""
        torch.manual_seed(0)
        return self.network()

    def batch(self, step: int, progress: float, device: torch.device) -> Batch:
        """Pairs from the source."""
        return self.source.batch(step, progress, device)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """``total`` and its parts; the losses are taken in float32."""
        maps_1, maps_2 = self.forward(model, batch)
        with torch.autocast(batch["views"].device.type, enabled=False):
            maps_1, maps_2 = ({name: m.float() for name, m in maps.items()} for maps in (maps_1, maps_2))
            truth = PairTruth(
                (batch["points_1"], batch["points_2"]),
                (batch["valid_1"], batch["valid_2"]),
                sky=(batch["sky_1"], batch["sky_2"]),
            )
            confidence = (maps_1["confidence"], maps_2["confidence"])
            points = self.regression(PairOutput((maps_1["points"], maps_2["points"]), confidence), truth)
            total, parts = points.total, points.parts
            if "descriptors" in maps_1:
                descriptors = (maps_1["descriptors"], maps_2["descriptors"])
                confidence = (maps_1["descriptor_confidence"], maps_2["descriptor_confidence"])
                match = self.matching(descriptors, confidence, correspondences_of(batch))
                total, parts = total + self.matching_weight * match.total, parts | match.parts
        return {"total": total, **parts}

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """The numbers of ``unposed.train.validation`` on every validation set, prefixed with its name."""
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return {
                f"{name}/{key}": value
                for name, batch in self._sets(device).items()
                for key, value in evaluate_pairs(model, batch).items()
            }

    def preview(self, model: nn.Module, device: torch.device) -> UInt8[np.ndarray, "height width 3"]:
        """Predictions for the first pairs of the first validation set."""
        return picture(model, next(iter(self._sets(device).values())))

    def metadata(self) -> dict[str, Any]:
        """What the exported file says of itself."""
        return self.facts | {"card": f"docs/models/{self.name}.md"}

    def _sets(self, device: torch.device) -> Mapping[str, Batch]:
        if device not in self._validation:
            self._validation[device] = self.source.validation(device)
        return self._validation[device]


def every_pair(model: nn.Module, batch: Batch) -> tuple[ViewMaps, ViewMaps]:
    """Both images of every pair through the network."""
    return model(*images_of(batch))


def every_view_once(model: Mini, batch: Batch) -> tuple[ViewMaps, ViewMaps]:
    """Encode each view once, however many pairs it is in; decode the pairs."""
    features = model.encode_images(batch["views"])
    size = (batch["views"].shape[-2], batch["views"].shape[-1])
    view_1, view_2 = ({name: f[batch[key]] for name, f in features.items()} for key in ("view_1", "view_2"))
    return model.decode_features(view_1, view_2, size, size)


def curriculum(side: int | None, scenes: int | None, world: int = 1) -> tuple[list[Stage], list[tuple[int, int]]]:
    """The stages of ``mini``, trained by ``world`` processes, and the sizes of its validation sets.

    Easy first: small pictures with much overlap, so that the decoders find correspondence early; mixed aspect ratios
    last. ``side`` replaces it by one stage of small squares, ``scenes`` sets the scenes per step (for a CPU).
    """
    if side is not None:
        return [Stage(1.0, ((side, side),), scenes or 4, 6, (0.3, 1.0))], [(side, side)]
    stages = [
        Stage(0.20, ((128, 128),), 72, 8, (0.5, 1.0), ahead=4),
        Stage(0.40, ((160, 160),), 48, 8, (0.35, 1.0), ahead=4),
        Stage(0.80, ((224, 224),), 24, 8, (0.2, 1.0), ahead=4),
        Stage(1.00, _MIXED, 10, 8, (0.1, 1.0), ahead=4),
    ]
    if scenes is not None:
        stages = [replace(s, scenes=scenes) for s in stages]
    if world > 1:  # the next batch of a process is not the next one of the run
        stages = [replace(s, ahead=1) for s in stages]
    return stages, [(224, 224), (288, 384)]


_TINY = MiniConfig(64, 96, 3, 3, 64, 3, 2, 32, 16)


def mini_recipe(
    textures: Path | None = None,
    side: int | None = None,
    scenes: int | None = None,
    photos: Path | None = None,
    tiny: bool = False,
    world: int = 1,
) -> PairRecipe:
    """The model that ships with the package; options as in ``unposed.train.loop.train_command``."""
    config = _TINY if tiny else MiniConfig()
    return PairRecipe(
        "mini",
        lambda: Mini(config),
        _source(textures, side, scenes, photos, world),
        {"system": SYSTEM, "config": asdict(config)},
        every_view_once,
        regression=ConfidenceWeighted(MetricRegression()),  # teaches low confidence in the sky
    )


def dust3r_recipe(
    textures: Path | None,
    side: int | None = None,
    scenes: int | None = None,
    photos: Path | None = None,
    world: int = 1,
) -> PairRecipe:
    """DUSt3R's released size with a linear head, its loss and its optimiser; for large GPUs."""
    config = Dust3rConfig(img_size=(224, 224) if side is None else (side, side), head_type="linear")
    return PairRecipe(
        "dust3r",
        lambda: Dust3r(config),
        _source(textures, side, scenes, photos, world),
        {"system": "dust3r", "config": asdict(config)},
        every_pair,
        Optimisation(learning_rate=1e-4),
    )


def _source(textures: Path | None, side: int | None, scenes: int | None, photos: Path | None, world: int) -> PairSource:
    """A user's own photos where given, else procedural scenes."""
    if photos is not None:
        wide = [(side, side)] if side is not None else [(384, 288), (384, 256), (384, 208)]
        return PosedPairs(photos, wide, batch=scenes or 8)
    stages, validation = curriculum(side, scenes, world)
    return ScenePairs(textures, stages, validation, size=128 if side is None else 32)
