"""DUSt3R's global alignment as published (section 3.4): parameters, objective and Adam recipe.

The whole of every pointmap is in memory and in the objective. ``align.dense`` minimises the same objective much
faster; this module and ``align.spanning_tree``, the published start, are its yardstick, in benchmarks and against the
reference's numbers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unposed.geometry.cameras import pixel_grid
from unposed.geometry.rotations import matrix_from_quaternion, quaternion_from_matrix
from unposed.geometry.transforms import rigid

Distance = Literal["l1", "l2"]
ConfidenceTransform = Literal["log", "sqrt", "m1", "id"]
Normaliser = Literal["total", "per_edge"]
Schedule = Literal["cosine", "linear"]

PRINCIPAL_POINT_UNIT = 10.0
"""Pixels by which one unit of the raw parameter moves the principal point."""


@dataclass(frozen=True)
class Recipe:
    """Constants of the published alignment."""

    base_scale: float = 0.5
    """Geometric mean of the pairwise scales, which fixes the scale of the world."""
    focal_break: float = 20.0
    """The raw focal parameter is this times the log of the focal."""
    certain_confidence: float = 3.0
    """Pixels with a larger confidence take part in PnP."""
    pnp_iterations: int = 10
    learning_rate: float = 0.01
    least_learning_rate: float = 1e-6
    adam_betas: tuple[float, float] = (0.9, 0.9)
    adam_epsilon: float = 1e-8

    def rate(self, step: int, steps: int, schedule: Schedule) -> float:
        """Learning rate of ``step`` (from 0) of ``steps``."""
        span = self.learning_rate - self.least_learning_rate
        if schedule == "cosine":
            return self.least_learning_rate + span * (1 + math.cos(math.pi * step / steps)) / 2
        return self.learning_rate - span * step / steps


PUBLISHED = Recipe()


@dataclass(frozen=True, eq=False)
class PairData:
    """All pair predictions in memory, maps flattened and padded at their end to the largest photo's area."""

    edges: Int[Tensor, "edges 2"]
    points_i: Float[Tensor, "edges pixels 3"]
    points_j: Float[Tensor, "edges pixels 3"]
    confidence_i: Float[Tensor, "edges pixels"]
    """At least 1; 0 in the padding."""
    confidence_j: Float[Tensor, "edges pixels"]
    sizes: list[tuple[int, int]]
    """(height, width) of every photo."""

    @property
    def areas(self) -> Int[Tensor, "photos"]:
        """Pixels of every photo."""
        return torch.tensor([height * width for height, width in self.sizes])

    @staticmethod
    def stack(
        edges: Int[Tensor, "edges 2"],
        points_i: Sequence[Float[Tensor, "pixels 3"]],
        points_j: Sequence[Float[Tensor, "pixels 3"]],
        confidence_i: Sequence[Float[Tensor, "pixels"]],
        confidence_j: Sequence[Float[Tensor, "pixels"]],
        sizes: list[tuple[int, int]],
    ) -> "PairData":
        """From flattened maps of each edge's own size."""
        pixels = max(height * width for height, width in sizes)

        def pad(maps: Sequence[Tensor]) -> Tensor:
            padded = maps[0].new_zeros(len(maps), pixels, *maps[0].shape[1:])
            for row, values in zip(padded, maps, strict=True):
                row[: len(values)] = values
            return padded

        return PairData(edges.long(), pad(points_i), pad(points_j), pad(confidence_i), pad(confidence_j), list(sizes))

    def edge_scores(self) -> Float[Tensor, "edges"]:
        """Product of the mean confidences of both maps, the quality of a pair in the spanning tree."""
        areas = self.areas[self.edges]
        return self.confidence_i.sum(1) / areas[:, 0] * (self.confidence_j.sum(1) / areas[:, 1])

    def photo_confidence(self) -> Float[Tensor, "photos pixels"]:
        """Largest confidence that any pair gives to a pixel; 0 in the padding."""
        best = self.confidence_i.new_zeros(len(self.sizes), self.confidence_i.shape[1])
        for (i, j), confidence_i, confidence_j in zip(
            self.edges.tolist(), self.confidence_i, self.confidence_j, strict=True
        ):
            best[i] = torch.maximum(best[i], confidence_i)
            best[j] = torch.maximum(best[j], confidence_j)
        return best


@dataclass(eq=False)
class Parameters:
    """Raw parameters of the objective, as the reference optimises them."""

    pairwise: Float[Tensor, "edges 8"]
    """Quaternion xyzw, signed log1p of the translation, log scale."""
    poses: Float[Tensor, "photos 7"]
    """``world_from_camera``: quaternion xyzw, signed log1p of the translation."""
    log_depth: Float[Tensor, "photos pixels"]
    log_focal: Float[Tensor, "photos axes"]
    """``focal_break * ln(focal)``: one column, or one each for x and y."""
    principal_offset: Float[Tensor, "photos 2"]
    """Principal point relative to ``principal_point``, in units of 10 pixels."""
    principal_point: Float[Tensor, "photos 2"]
    """Constant, pixels: (width / 2, height / 2) in the reference."""
    normalise_scale: bool = True
    """Hold the geometric mean of the pairwise scales at the recipe's; off when all cameras are given."""
    recipe: Recipe = PUBLISHED

    @staticmethod
    def encode(
        pairwise: Float[Tensor, "edges 4 4"],
        poses: Float[Tensor, "photos 4 4"],
        depth: Float[Tensor, "photos pixels"],
        focal: Float[Tensor, "photos"],
        principal_point: Float[Tensor, "photos 2"],
        normalise_scale: bool = True,
        recipe: Recipe = PUBLISHED,
    ) -> "Parameters":
        """From scaled pairwise transforms (``world_from_pair``), rigid poses, depths and focals."""
        scale = torch.linalg.det(pairwise[:, :3, :3]).pow(1 / 3)
        turn = _xyzw(pairwise[:, :3, :3] / scale[:, None, None])
        log_depth = depth.log().nan_to_num(nan=0.0, neginf=0.0)
        return Parameters(
            torch.cat([turn, _signed_log1p(pairwise[:, :3, 3] / scale[:, None]), scale.log()[:, None]], 1),
            torch.cat([_xyzw(poses[:, :3, :3]), _signed_log1p(poses[:, :3, 3])], 1),
            log_depth,
            recipe.focal_break * focal.log()[:, None],
            torch.zeros_like(principal_point),
            principal_point,
            normalise_scale,
            recipe,
        )

    def pairwise_scale(self) -> Float[Tensor, "edges"]:
        """Scale of every pair's frame in the world."""
        log_scale = self.pairwise[:, 7]
        if self.normalise_scale:
            log_scale = log_scale - log_scale.mean() + math.log(self.recipe.base_scale)
        return log_scale.exp()

    def world_from_pair(self) -> Float[Tensor, "edges 4 4"]:
        """Similarity of every pair; the scale multiplies rotation and translation."""
        pose = _decode_pose(self.pairwise[:, :7])
        scaled = pose[:, :3] * self.pairwise_scale()[:, None, None]
        return torch.cat([scaled, pose[:, 3:]], 1)

    def world_from_camera(self) -> Float[Tensor, "photos 4 4"]:
        """Pose of every camera."""
        return _decode_pose(self.poses)

    def focals(self) -> Float[Tensor, "photos axes"]:
        """Focals in pixels."""
        return (self.log_focal / self.recipe.focal_break).exp()

    def principal_points(self) -> Float[Tensor, "photos 2"]:
        """Principal points in pixels."""
        return self.principal_point + PRINCIPAL_POINT_UNIT * self.principal_offset

    def depth(self) -> Float[Tensor, "photos pixels"]:
        """z-depth of every pixel."""
        return self.log_depth.exp()

    def clone(self) -> "Parameters":
        """A copy that shares nothing and needs no gradients yet."""
        return Parameters(
            self.pairwise.detach().clone(),
            self.poses.detach().clone(),
            self.log_depth.detach().clone(),
            self.log_focal.detach().clone(),
            self.principal_offset.detach().clone(),
            self.principal_point,
            self.normalise_scale,
            self.recipe,
        )


class Objective:
    """Sum over pairs and pixels of ``weight * |world point - world_from_pair * pair point|`` (equation 5)."""

    def __init__(
        self,
        data: PairData,
        distance: Distance = "l1",
        transform: ConfidenceTransform = "log",
        normaliser: Normaliser = "total",
    ) -> None:
        """``normaliser``: divide all i sides by the sum of their areas and all j sides by theirs, or every map by its
        own area and the number of pairs; the same when all photos have one size."""
        self.data, self.distance = data, distance
        areas = data.areas[data.edges].to(data.points_i)
        areas = areas.sum(0).expand_as(areas) if normaliser == "total" else areas * len(areas)
        self.weight_i = transform_confidence(data.confidence_i, transform) / areas[:, :1]
        self.weight_j = transform_confidence(data.confidence_j, transform) / areas[:, 1:]
        self._pixels = torch.zeros(len(data.sizes), data.points_i.shape[1], 2)
        for row, (height, width) in zip(self._pixels, data.sizes, strict=True):
            row[: height * width] = pixel_grid(height, width).reshape(-1, 2)

    def __call__(self, parameters: Parameters) -> Float[Tensor, ""]:
        """Value at the parameters, differentiable."""
        pose, pairwise = parameters.world_from_camera(), parameters.world_from_pair()
        depth = parameters.depth()[..., None]
        slopes = (self._pixels - parameters.principal_points()[:, None]) / parameters.focals()[:, None]
        camera_points = torch.cat([slopes * depth, depth], -1)
        world = camera_points @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3]
        rotation, translation = pairwise[:, :3, :3].transpose(1, 2), pairwise[:, None, :3, 3]
        total = world.new_zeros(())
        for side, (points, weight) in enumerate(
            ((self.data.points_i, self.weight_i), (self.data.points_j, self.weight_j))
        ):
            residual = world[self.data.edges[:, side]] - (points @ rotation + translation)
            length = residual.norm(dim=-1) if self.distance == "l1" else residual.square().sum(-1)
            total = total + (length * weight).sum()
        return total


def transform_confidence(confidence: Tensor, transform: ConfidenceTransform) -> Tensor:
    """Weight of a confidence (at least 1); padding (0) gets weight 0."""
    c = confidence.clamp(min=1.0)
    weight = {"log": torch.log, "sqrt": torch.sqrt, "m1": lambda v: v - 1, "id": lambda v: v}[transform](c)
    return torch.where(confidence > 0, weight, torch.zeros_like(weight))


def minimise_with_adam(
    objective: Objective,
    parameters: Parameters,
    steps: int = 300,
    schedule: Schedule = "cosine",
    free: Sequence[str] = ("pairwise", "poses", "log_depth", "log_focal"),
) -> Iterator[float]:
    """Run the published recipe on ``parameters`` in place; yields the objective before every step.

    ``free`` names the parameters that move.
    """
    leaves = [getattr(parameters, name).requires_grad_() for name in free]
    recipe = parameters.recipe
    optimiser = torch.optim.Adam(leaves, recipe.learning_rate, recipe.adam_betas, recipe.adam_epsilon)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = recipe.rate(step, steps, schedule)
        optimiser.zero_grad()
        loss = objective(parameters)
        loss.backward()
        optimiser.step()
        yield float(loss.detach())
    for leaf in leaves:
        leaf.requires_grad_(False)


def _decode_pose(raw: Float[Tensor, "n 7"]) -> Float[Tensor, "n 4 4"]:
    rotation = matrix_from_quaternion(raw[:, [3, 0, 1, 2]])
    translation = raw[:, 4:7].sign() * raw[:, 4:7].abs().expm1()
    return rigid(rotation, translation)


def _signed_log1p(value: Tensor) -> Tensor:
    return value.sign() * value.abs().log1p()


def _xyzw(rotation: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 4"]:
    return quaternion_from_matrix(rotation)[:, [1, 2, 3, 0]]
