"""A stand-in for MASt3R that is right: descriptors that are functions of the surface point under a pixel."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.tasks.perfect import PerfectModel
from unposed.geometry.cameras import map_pixels, pixel_grid
from unposed.geometry.transforms import transform_points
from unposed.views import Camera, Pair, PairPrediction, View

CHANNELS = 24


def descriptors(points: Tensor, scale: float) -> Tensor:
    """Unit vectors, nearest for nearest points: cosines and sines of projections on random directions.

    ``scale`` is the size of the scene; the shortest wave is a tenth of it.
    """
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(3, CHANNELS // 2, generator=generator) * torch.linspace(0.5, 10, CHANNELS // 2)
    phase = points @ wave * (math.pi / 2 / scale)
    return torch.cat([phase.cos(), phase.sin()], -1) * (2 / CHANNELS) ** 0.5


class DescribedModel(PerfectModel):
    """Exact pointmaps and descriptors of a procedural scene."""

    name = "described"
    metric = True

    def _depth(self, view: View) -> Tensor:
        """Between the pixels of the truth linear in 1 / depth, as planes are; 0 where one of them has none."""
        inverse = 1 / self._truth.depth[0, list(self._cameras).index(view.name)]
        height, width = inverse.shape
        places = map_pixels(view.original_from_view, pixel_grid(*view.size, dtype=torch.float64))
        places = (2 * places + 1) / torch.tensor([width, height]) - 1
        found = F.grid_sample(inverse[None, None], places[None].float(), padding_mode="border", align_corners=False)
        return 1 / found[0, 0]

    def decode(
        self, views: Sequence[View], features: Sequence[Camera], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairPrediction]]:
        """Predictions with descriptors; a descriptor is trusted by 5 where there is a surface and by 1 elsewhere."""
        scale = float(self._truth.depth[self._truth.depth > 0].median())
        for (i, j), exact in super().decode(views, features, pairs):
            per_pair = 1 + 0.1 * ((3 * i + 5 * j) % 7)
            maps = []
            for points in (exact.points_i, exact.points_j):
                world = transform_points(features[i].world_from_camera, points / per_pair)
                maps.append((points / per_pair, descriptors(world, scale)))
            yield (
                (i, j),
                replace(
                    exact,
                    points_i=maps[0][0],
                    points_j=maps[1][0],
                    descriptors_i=maps[0][1],
                    descriptors_j=maps[1][1],
                    descriptor_confidence_i=exact.confidence_i - 1,
                    descriptor_confidence_j=exact.confidence_j - 1,
                ),
            )
