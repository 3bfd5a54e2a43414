"""Sparse global alignment as published (MASt3R-SfM, section 3.4): camera model, two losses, and its Adam recipe.

``align.sparse`` minimises the same fine loss from a better start by a faster way; this module is its yardstick, in
benchmarks and against the reference's numbers. Nothing here loops over views or pairs, only over levels of the tree.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unposed.align.anchored import AnchoredMatches
from unposed.align.canonical import depth_ratio
from unposed.align.kinematic import KinematicTree
from unposed.geometry.cameras import intrinsics_matrix
from unposed.geometry.rotations import matrix_from_quaternion
from unposed.geometry.transforms import rigid
from unposed.views import Pair

LEAST_PROJECTED_DEPTH = 1e-3
PROJECTED_LIMITS = (-1000.0, 2000.0)
"""Projected pixels are clipped to these, as in the reference."""
FOCAL_LIMITS = (0.25, 10.0)
"""Limits of the focal in units of the picture's diagonal."""
_LEAST_ANCHOR_DEPTH = 1e-4

Stage = Literal["coarse", "fine"]


@dataclass(frozen=True)
class SparseRecipe:
    """All arguments of the published alignment, at their published values."""

    coarse_rate: float = 0.07
    coarse_steps: int = 300
    fine_rate: float = 0.01
    fine_steps: int = 300
    coarse_exponent: float = 1.5
    fine_exponent: float = 0.5
    fallback_exponent: float = 1.1
    fallback_weight: float = 0.01
    certain_match: float = 5.0
    """A pair without a match of more than this confidence is aligned by its pointmaps instead."""
    shared_intrinsics: bool = False
    free_principal_point: bool = True
    free_depth: bool = True
    depth_mode: Literal["add", "mul"] = "add"
    """Whether an anchor's share of the view's typical depth stays when the focal changes, or scales along."""
    log_depth: bool = False
    """Optimise the logarithm of the anchors' depths."""
    adam_betas: tuple[float, float] = (0.9, 0.9)
    adam_epsilon: float = 1e-8


PUBLISHED = SparseRecipe()


@dataclass(eq=False)
class SparseParameters:
    """Raw parameters, as the reference optimises them."""

    quaternion: Float[Tensor, "views 4"]
    """Rotation relative to the parent, unit, xyzw."""
    translation: Float[Tensor, "views 3"]
    """Relative to the parent; of the point on the optical axis at the typical depth, not of the camera centre."""
    log_size: Float[Tensor, "views"]
    log_focal: Float[Tensor, "intrinsics"]
    """Log of the focal in pixels; one for each view or one for all."""
    principal_point: Float[Tensor, "intrinsics 2"]
    """In units of the picture's width and height."""
    depth: Float[Tensor, "anchors"]
    """Of the anchors, in units of their view's typical depth, or its logarithm."""

    @staticmethod
    def start(
        data: AnchoredMatches,
        principal_point: Float[Tensor, "views 2"],
        recipe: SparseRecipe = PUBLISHED,
        view_weight: Float[Tensor, "views"] | None = None,
    ) -> "SparseParameters":
        """The published start: all cameras in one place, focals and depths of the canonical views.

        ``principal_point`` is in pixels. Shared intrinsics start at the mean weighted by ``view_weight``.
        """
        views = len(data.sizes)
        log_focal, centre = data.base_focal.log(), principal_point / data.sizes
        if recipe.shared_intrinsics:
            share = torch.ones(views) if view_weight is None else view_weight.to(data.base_focal)
            share = share / share.sum()
            log_focal = (share * data.base_focal).sum(0, keepdim=True).log()
            centre = (share[:, None] * centre).sum(0, keepdim=True)
        depth = data.core_depth / data.typical_depth[data.view_of_anchor]
        return SparseParameters(
            depth.new_tensor([0.0, 0, 0, 1]).repeat(views, 1),
            depth.new_zeros(views, 3),
            depth.new_zeros(views),
            log_focal,
            centre,
            depth.clamp(min=_LEAST_ANCHOR_DEPTH).log() if recipe.log_depth else depth,
        )

    def clone(self) -> "SparseParameters":
        """A copy that shares nothing and needs no gradients yet."""
        return SparseParameters(**{field.name: getattr(self, field.name).detach().clone() for field in fields(self)})


@dataclass(frozen=True, eq=False)
class SparseScene:
    """Cameras and anchor depths, however they are parametrised."""

    intrinsics: Float[Tensor, "views 3 3"]
    world_from_camera: Float[Tensor, "views 4 4"]
    depth: Float[Tensor, "anchors"]
    """z-depth of every anchor."""

    @property
    def focal(self) -> Float[Tensor, "views"]:
        """In pixels; the mean of both axes."""
        return self.intrinsics.diagonal(dim1=1, dim2=2)[:, :2].mean(1)

    def match_points(self, data: AnchoredMatches) -> Float[Tensor, "matches 2 3"]:
        """World point that either side of every match says."""
        local = match_rays(data, self.intrinsics) * self.depth[data.anchor][..., None]
        pose = self.world_from_camera[data.view]
        return (pose[..., :3, :3] @ local[..., None]).squeeze(-1) + pose[..., :3, 3]


def match_rays(data: AnchoredMatches, intrinsics: Float[Tensor, "views 3 3"]) -> Float[Tensor, "matches 2 3"]:
    """Point of either side of every match in its own camera, for anchors at depth 1."""
    axes = intrinsics.diagonal(dim1=1, dim2=2)[:, :2]
    zoom = data.base_focal / axes.mean(1)
    k = torch.stack([axes, intrinsics[:, :2, 2]], 1)[data.view]
    slope = (data.pixel - k[..., 1, :]) / k[..., 0, :]
    ray = torch.cat([slope, torch.ones_like(slope[..., :1])], -1)
    return ray * depth_ratio(data.offset, zoom[data.view])[..., None]


def held_points(
    sizes: Int[Tensor, "views 2"], intrinsics: Float[Tensor, "views 3 3"], depth: Float[Tensor, "views"]
) -> Float[Tensor, "views 3"]:
    """Points behind the middle of every picture, in the cameras: a pose moves them, and focal and depth leave them."""
    slope = (sizes / 2 - intrinsics[:, :2, 2]) / intrinsics.diagonal(dim1=1, dim2=2)[:, :2]
    return depth[:, None] * torch.cat([slope, torch.ones_like(slope[:, :1])], 1)


def projected(homogeneous: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 2"]:
    """Pixels of homogeneous ones, with the reference's limits."""
    return (homogeneous[..., :2] / homogeneous[..., 2:].clamp(min=LEAST_PROJECTED_DEPTH)).clamp(*PROJECTED_LIMITS)


def soft_power(distance: Tensor, exponent: float) -> Tensor:
    """``(x + o)^exponent - o^exponent`` with the o that makes its slope at zero 1: robust below exponent 1."""
    shift = power_shift(exponent)
    return (distance + shift) ** exponent - shift**exponent


def power_shift(exponent: float) -> float:
    """The o of :func:`soft_power`."""
    return float((1 / exponent) ** (1 / (exponent - 1)))


class CameraModel:
    """From raw parameters to cameras and depths, along a kinematic tree (section 3.4)."""

    def __init__(self, data: AnchoredMatches, tree: KinematicTree, recipe: SparseRecipe = PUBLISHED) -> None:
        self.data, self.recipe = data, recipe
        self._typical = data.typical_depth
        self._diagonal = data.sizes.to(data.base_focal).norm(dim=1)
        order, self._levels = [tree.root], []
        for level in tree.levels():
            parents = torch.tensor([order.index(parent) for parent, _ in level])
            self._levels.append((parents, torch.tensor([child for _, child in level])))
            order += [child for _, child in level]
        self._root, self._position = tree.root, torch.tensor(order).argsort()

    def __call__(self, parameters: SparseParameters) -> SparseScene:
        """The scene, differentiable."""
        data = self.data
        focal = parameters.log_focal.exp().clamp(FOCAL_LIMITS[0] * self._diagonal, FOCAL_LIMITS[1] * self._diagonal)
        size = parameters.log_size.exp()
        unit = 1 / size.min()  # the smallest view keeps size 1, else the scene would shrink to nothing
        typical = size * self._typical * focal / data.base_focal
        poses = self._chain(parameters)
        intrinsics = intrinsics_matrix(focal.expand(len(data.sizes)), parameters.principal_point * data.sizes)
        held = held_points(data.sizes, intrinsics, typical)
        centres = unit * (poses[:, :3, 3] - (poses[:, :3, :3] @ held[..., None]).squeeze(-1))
        return SparseScene(
            intrinsics,
            rigid(poses[:, :3, :3], centres),
            unit * self._depth(parameters, size, typical),
        )

    def _depth(self, parameters: SparseParameters, size: Tensor, typical: Tensor) -> Float[Tensor, "anchors"]:
        view = self.data.view_of_anchor
        depth = parameters.depth.exp() if self.recipe.log_depth else parameters.depth
        if self.recipe.depth_mode == "mul":
            return typical[view] * depth
        return typical[view] + (depth - 1) * (self._typical * size)[view]

    def _chain(self, parameters: SparseParameters) -> Float[Tensor, "views 4 4"]:
        """Poses relative to the root's parent, level by level."""
        steps = rigid(matrix_from_quaternion(parameters.quaternion[:, [3, 0, 1, 2]]), parameters.translation)
        placed = steps[self._root][None]
        for parents, children in self._levels:
            placed = torch.cat([placed, placed[parents] @ steps[children]])
        return placed[self._position]


@dataclass(frozen=True, eq=False)
class AnchorMap:
    """What the other view of a pair says of a view's anchors: pointmap values at the blocks' first pixels."""

    points: Float[Tensor, "anchors 3"]
    """In the camera of the other view."""
    confidence: Float[Tensor, "anchors"]


class SparseObjective:
    """The two losses over matches, each with the weak pull of the pointmaps where a pair has no certain match."""

    def __init__(
        self,
        data: AnchoredMatches,
        model: CameraModel,
        fallback: Mapping[Pair, AnchorMap] | None = None,
        recipe: SparseRecipe = PUBLISHED,
    ) -> None:
        """``fallback[a, b]``: the anchors of view b as predicted in camera a."""
        best = data.confidence.new_zeros(len(data.pairs)).scatter_reduce(0, data.pair, data.confidence, "amax")
        self._certain = best > recipe.certain_match
        self._all, self._matches = data, data.of_pairs(self._certain)
        self._model, self._recipe = model, recipe
        self._fallback = self._points_without_matches(fallback or {})

    def __call__(self, parameters: SparseParameters, stage: Stage) -> Float[Tensor, ""]:
        """The loss of a stage, differentiable."""
        scene = self._model(parameters)
        loss = coarse_loss if stage == "coarse" else fine_loss
        exponent = self._recipe.coarse_exponent if stage == "coarse" else self._recipe.fine_exponent
        return loss(scene, self._matches, exponent) + self._recipe.fallback_weight * self._fallback_loss(scene)

    def _points_without_matches(self, fallback: Mapping[Pair, AnchorMap]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(match side, other view, point in it, weight) for all match sides of a view and all its uncertain pairs."""
        view, anchor = self._all.view.flatten(), self._all.anchor.flatten()
        first = torch.tensor([0, *self._all.anchors_per_view]).cumsum(0)
        rows = []
        for i, j in self._all.pairs[~self._certain].tolist():
            for other, own in ((i, j), (j, i)):
                if (other, own) in fallback:
                    mine = (view == own).nonzero()[:, 0]
                    local = anchor[mine] - first[own]
                    said = fallback[other, own]
                    rows.append((mine, torch.full_like(mine, other), said.points[local], said.confidence[local]))
        if not rows:
            nothing = torch.zeros(0, dtype=torch.int64)
            return nothing, nothing, torch.zeros(0, 3), torch.zeros(0)
        side, other_view, points, weight = (torch.cat(part) for part in zip(*rows, strict=True))
        return side, other_view, points.to(self._all.pixel), weight.to(self._all.pixel)

    def _fallback_loss(self, scene: SparseScene) -> Float[Tensor, ""]:
        side, other, points, weight = self._fallback
        if not len(side):
            return scene.depth.new_zeros(())
        pose = scene.world_from_camera[other]
        target = (pose[:, :3, :3] @ points[..., None]).squeeze(-1) + pose[:, :3, 3]
        distance = (scene.match_points(self._all).flatten(0, 1)[side] - target).norm(dim=-1)
        return (weight * soft_power(distance, self._recipe.fallback_exponent)).sum() / weight.sum()


def coarse_residuals(scene: SparseScene, data: AnchoredMatches) -> Float[Tensor, "matches 3"]:
    """What lies between the two points of every match, in the world."""
    points = scene.match_points(data)
    return points[:, 0] - points[:, 1]


def fine_residuals(scene: SparseScene, data: AnchoredMatches) -> Float[Tensor, "matches 2 2"]:
    """Either pixel of every match less the projection of the other side's point, in pixels.

    Entry (match, side) is about the point of that side, seen in the view of the other.
    """
    origin, direction = projected_rays(scene, data)
    return data.pixel.flip(1) - projected(origin + scene.depth[data.anchor][..., None] * direction)


def projected_rays(
    scene: SparseScene, data: AnchoredMatches
) -> tuple[Float[Tensor, "matches 2 3"], Float[Tensor, "matches 2 3"]]:
    """Origin and direction of what the other view sees of either side of every match, in homogeneous pixels.

    The pixel is that of ``origin + depth of the anchor * direction``.
    """
    own, other = data.pairs, data.pairs.flip(1)
    camera_from_world = scene.world_from_camera[other, :3, :3].mT
    project = scene.intrinsics[other] @ camera_from_world
    turn = project @ scene.world_from_camera[own, :3, :3]
    shift = project @ (scene.world_from_camera[own, :3, 3] - scene.world_from_camera[other, :3, 3])[..., None]
    ray = match_rays(data, scene.intrinsics)
    return shift.squeeze(-1)[data.pair], (turn[data.pair] @ ray[..., None]).squeeze(-1)


def coarse_loss(
    scene: SparseScene, data: AnchoredMatches, exponent: float = PUBLISHED.coarse_exponent
) -> Float[Tensor, ""]:
    """Mean over matches, weighted by confidence, of the distances between their points (equation 6)."""
    cost = soft_power(coarse_residuals(scene, data).norm(dim=-1), exponent)
    return (data.confidence * cost).sum() / data.confidence.sum().clamp(min=1e-20)


def fine_loss(
    scene: SparseScene, data: AnchoredMatches, exponent: float = PUBLISHED.fine_exponent
) -> Float[Tensor, ""]:
    """Mean over matches and their sides, weighted by confidence, of the distances in pixels (equation 7)."""
    cost = soft_power(fine_residuals(scene, data).norm(dim=-1), exponent)
    return (data.confidence[:, None] * cost).sum() / (2 * data.confidence.sum()).clamp(min=1e-20)


def free_parameters(stage: Stage, recipe: SparseRecipe = PUBLISHED) -> list[str]:
    """Names of the parameters that move in a stage."""
    names = ["quaternion", "translation", "log_size"]
    if stage == "fine":
        names += ["log_focal"] + ["principal_point"] * recipe.free_principal_point + ["depth"] * recipe.free_depth
    return names


class Step(NamedTuple):
    """A step of the published optimiser."""

    loss: float
    before: SparseParameters
    """The parameters that have this loss; the published result is those of the last step."""


def minimise_stage(
    objective: Callable[[SparseParameters, Stage], Float[Tensor, ""]],
    parameters: SparseParameters,
    stage: Stage,
    recipe: SparseRecipe = PUBLISHED,
) -> Iterator[Step]:
    """Run a stage of the published recipe on ``parameters`` in place; yields after every step, with its gradients.

    Quaternions are made unit before every step. The published optimiser lists shared intrinsics once for every view,
    and so takes as many steps with them in one; so does this.
    """
    rate, steps = (
        (recipe.coarse_rate, recipe.coarse_steps) if stage == "coarse" else (recipe.fine_rate, recipe.fine_steps)
    )
    free = {name: getattr(parameters, name).requires_grad_() for name in free_parameters(stage, recipe)}
    views = len(parameters.quaternion)
    repeats = {name: views // len(leaf) for name, leaf in free.items() if name in ("log_focal", "principal_point")}
    optimisers = {
        name: torch.optim.Adam([leaf], rate, recipe.adam_betas, recipe.adam_epsilon) for name, leaf in free.items()
    }
    for step in range(steps):
        with torch.no_grad():
            parameters.quaternion /= parameters.quaternion.norm(dim=1, keepdim=True)
        before = parameters.clone()
        loss = objective(parameters, stage)
        for leaf, gradient in zip(free.values(), torch.autograd.grad(loss, list(free.values())), strict=True):
            leaf.grad = gradient
        for name, optimiser in optimisers.items():
            optimiser.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
            for _ in range(repeats.get(name, 1)):
                optimiser.step()
        yield Step(float(loss.detach()), before)
    for leaf in free.values():
        leaf.requires_grad_(False)
