"""Full-resolution depth maps for solved cameras and pair frames, one view at a time, reading only its pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import torch
from jaxtyping import Float
from torch import Tensor

from unposed.align.sampling import Progress, side_of
from unposed.align.solve import LEAST_DEPTH, Solution, depth_observations
from unposed.geometry.cameras import backproject, pixel_grid
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.views import Pair, PairPrediction

MAX_MAPS = 32
"""A depth map is solved from at most this many maps of its view, those of the best pairs; bounds the memory."""
_ITERATIONS = 20
_LEAST_WEIGHT = 1e-4
"""Weight of pixels whose confidence is 1: a pixel that nobody is sure of still gets the depth they agree on."""
_SMOOTHING = 1e-4
"""Distances are smoothed at zero by this fraction of the depth."""
_BLOCK = 1 << 14
"""Pixels solved at a time."""


@dataclass(frozen=True, eq=False)
class DepthMaps:
    """Depth and confidence of every view of a component, and the objective over all pixels at the solution's scale."""

    depth: list[Float[Tensor, "height width"]]
    confidence: list[Float[Tensor, "height width"]]
    objective: float


@dataclass(frozen=True, eq=False)
class _Observation:
    """What one map says of its view, for every pixel, flat."""

    side: int
    """0 for view i of the pair, 1 for view j."""
    along: Float[Tensor, "pixels"]
    """Depth on the pixel's ray that is nearest to the map's point."""
    across: Float[Tensor, "pixels"]
    """Squared distance of the point there, in units of the ray's length."""
    confidence: Float[Tensor, "pixels"]

    def distance(self, depth: Float[Tensor, "pixels"], ray_length: Float[Tensor, "pixels"]) -> float:
        """Weighted sum of the distances between the map's points and those at the given depths."""
        lengths = ray_length * ((depth - self.along).square() + self.across).sqrt()
        return float((self.confidence.log() * lengths).sum(dtype=torch.float64))


def full_depth(
    members: Sequence[int],
    pairs: Sequence[Pair],
    score: Float[Tensor, "pairs"],
    predictions: Mapping[Pair, PairPrediction],
    solution: Solution,
    progress: Progress | None = None,
) -> DepthMaps:
    """Depth of every pixel of every view: the weighted geometric median, on its ray, of the maps' points.

    ``pairs`` are pairs of views (values of ``members``), in the order of ``score`` and ``solution.world_from_pair``.
    """
    best_first = score.argsort(descending=True).tolist()
    depths, confidences = [], []
    distance, area = [0.0, 0.0], [0, 0]
    for row, view in enumerate(members):
        mine = [(pair, side) for pair in best_first for side in (0, 1) if pairs[pair][side] == view]
        size = _size(predictions[pairs[mine[0][0]]], mine[0][1])
        rays = _rays(solution.intrinsics[row], size)
        length = rays.norm(dim=-1)
        from_world = invert_rigid(solution.world_from_camera[row])
        observations = (
            _observe(predictions[pairs[pair]], side, from_world @ solution.world_from_pair[pair], rays)
            for pair, side in mine
        )
        used = list(islice(observations, MAX_MAPS))
        depth = _depth_on_rays(used)
        confidence = torch.stack([one.confidence for one in used]).amax(0)
        for one in chain(used, observations):
            distance[one.side] += one.distance(depth, length)
            area[one.side] += len(depth)
            confidence = torch.maximum(confidence, one.confidence)
        depths.append(depth.reshape(size))
        confidences.append(confidence.reshape(size))
        if progress is not None:
            progress("solving depth", row + 1, len(members))
    return DepthMaps(depths, confidences, distance[0] / area[0] + distance[1] / area[1])


def _observe(
    prediction: PairPrediction, side: int, camera_from_pair: Float[Tensor, "4 4"], rays: Float[Tensor, "pixels 3"]
) -> _Observation:
    maps = side_of(prediction, side)
    along, across = depth_observations(rays, transform_points(camera_from_pair, maps.points.reshape(-1, 3)))
    return _Observation(side, along, across, maps.confidence.flatten())


def _depth_on_rays(observations: Sequence[_Observation]) -> Float[Tensor, "pixels"]:
    """Weighted geometric median by Weiszfeld's algorithm from the weighted mean, in blocks that stay in cache."""
    blocks = []
    for start in range(0, len(observations[0].along), _BLOCK):
        part = slice(start, start + _BLOCK)
        along = torch.stack([one.along[part] for one in observations])
        across = torch.stack([one.across[part] for one in observations])
        weight = torch.stack([one.confidence[part] for one in observations]).log_() + _LEAST_WEIGHT
        depth = (weight * along).sum(0) / weight.sum(0)
        across += (_SMOOTHING * depth).square()
        for _ in range(_ITERATIONS):
            pull = weight * ((along - depth).square_() + across).rsqrt_()
            depth = (pull * along).sum(0) / pull.sum(0)
        blocks.append(depth)
    return torch.cat(blocks).clamp(min=LEAST_DEPTH)


def _rays(intrinsics: Float[Tensor, "3 3"], size: tuple[int, int]) -> Float[Tensor, "pixels 3"]:
    pixels = pixel_grid(*size).reshape(-1, 2)
    return backproject(pixels, torch.ones(len(pixels)), intrinsics)


def _size(prediction: PairPrediction, side: int) -> tuple[int, int]:
    height, width = (prediction.confidence_j if side else prediction.confidence_i).shape
    return height, width
