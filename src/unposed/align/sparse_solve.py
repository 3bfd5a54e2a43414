"""Minimise the losses of sparse alignment by a quasi-Newton method, from a start that is already near.

The unknowns are those of the paper (MASt3R-SfM, section 3.4), with poses in the world instead of along a tree: turn of
every camera about the point on its central ray at its typical depth, shift of that point, size, focal, principal point.
The anchors' depths are eliminated: with the cameras fixed, each is a problem of its own, which a few reweighted
Gauss-Newton steps solve, and by the envelope theorem the gradient takes them as constants. What remains is small and
well conditioned, and L-BFGS, in units of equal curvature, does the rest.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from torch import Tensor

from unposed.align.anchored import AnchoredMatches
from unposed.align.sampling import Progress
from unposed.align.sparse_objective import (
    LEAST_PROJECTED_DEPTH,
    PUBLISHED,
    SparseScene,
    Stage,
    coarse_residuals,
    fine_loss,
    fine_residuals,
    held_points,
    power_shift,
    projected,
    projected_rays,
    soft_power,
)
from unposed.align.sparse_start import SparseStart
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import rigid

_ITERATIONS = {"coarse": 100, "fine": 200}
_SMOOTHING = {"coarse": 1e-3, "fine": 0.005}
"""Distances are smoothed at zero: of points, by this share of the scene's typical depth; of pixels, by these pixels."""
_PROBES = 8
_LEAST_CURVATURE = 1e-3
"""Relative to the mean over unknowns of a kind."""
_DEPTH_STEPS = 2
_LAST_SMOOTHINGS = (0.005, 0.001, 0.0001)
"""Pixels; the last depths are solved with less and less smoothing, ``_LAST_DEPTH_STEPS`` steps each."""
_LAST_DEPTH_STEPS = 10
_DEPTH_PRIOR = 1.0
"""Squared pixels: what an anchor twice as far as its canonical view says costs a match. It decides where the matches
cannot, as between views from one place."""
_LARGEST_DEPTH_STEP = 0.2
"""Relative change of a depth in one step."""


@dataclass(frozen=True, eq=False)
class Freedom:
    """What may move."""

    focal: Bool[Tensor, "views"]
    shared_focal: bool
    """All free focals move by one factor, and all free principal points by one share of the picture's size."""
    principal_point: Bool[Tensor, "views"]
    pose: Bool[Tensor, "views"]


@dataclass(frozen=True, eq=False)
class SparseSolution:
    """A solved component."""

    scene: SparseScene
    log_size: Float[Tensor, "views"]
    """Log of the world length of a unit of every canonical view."""
    loss: float
    """The fine loss."""


def solve_sparse(
    data: AnchoredMatches, start: SparseStart, freedom: Freedom, progress: Progress | None = None
) -> SparseSolution:
    """Minimum near ``start`` of the loss in 3D over poses and sizes, then of that in pixels over everything."""
    problem = _Problem(data, start, freedom)
    unknowns = torch.zeros(problem.size, dtype=torch.float64)
    steps = sum(_ITERATIONS.values())
    done = 0
    for stage in ("coarse", "fine"):
        unknowns = problem.minimise(stage, unknowns, None if progress is None else _after(progress, done, steps))
        done += _ITERATIONS[stage]
    if progress is not None:
        progress("aligning", steps, steps)
    with torch.no_grad():
        for smoothing in _LAST_SMOOTHINGS:
            problem.solve_depths(unknowns, _LAST_DEPTH_STEPS, smoothing)
        scene, log_size = problem.decode(unknowns)
        return SparseSolution(scene, log_size, float(fine_loss(scene, data)))


def _after(progress: Progress, done: int, steps: int) -> Progress:
    def report(what: str, step: int, of: int) -> None:
        progress(what, done + min(step, of), steps)

    return report


class _Problem:
    """Losses as functions of a vector of increments on the start."""

    def __init__(self, data: AnchoredMatches, start: SparseStart, freedom: Freedom) -> None:
        self.data, self.freedom = data, freedom
        self.views = len(data.sizes)
        self.poses, self.intrinsics = start.world_from_camera.double(), start.intrinsics.double()
        self.log_size = start.log_size.double()
        self.typical = data.typical_depth.double()
        self.base_focal = data.base_focal.double()
        self.focal_of_view, self.focals = _groups(freedom.focal, freedom.shared_focal)
        self.centre_of_view, self.centres = _groups(freedom.principal_point, freedom.shared_focal)
        focal = self.intrinsics.diagonal(dim1=1, dim2=2)[:, :2].mean(1)
        depth = self.log_size.exp() * self.typical * focal / self.base_focal
        self.unit = float(depth.median())
        held = held_points(data.sizes, self.intrinsics, depth)
        self.held = (self.poses[:, :3, :3] @ held[..., None]).squeeze(-1) + self.poses[:, :3, 3]
        self.share = self.canonical_share = data.core_depth.double() / self.typical[data.view_of_anchor]
        self.confidence = float(data.confidence.mean())
        self.parts = [6 * self.views, self.views, self.focals, 2 * self.centres]
        self.size = sum(self.parts)

    def decode(self, unknowns: Float[Tensor, "size"]) -> tuple[SparseScene, Float[Tensor, "views"]]:
        """Scene (float32) and log sizes at the increments, differentiable."""
        pose, size, focal, centre = unknowns.split(self.parts)
        pose = pose.reshape(-1, 6)
        log_size = self.log_size + size
        zoom = torch.cat([focal, focal.new_zeros(1)])[self.focal_of_view].exp()
        moved = torch.cat([centre.reshape(-1, 2), centre.new_zeros(1, 2)])[self.centre_of_view] * self.data.sizes
        intrinsics = self.intrinsics.clone()
        intrinsics[:, 0, 0], intrinsics[:, 1, 1] = self.intrinsics[:, 0, 0] * zoom, self.intrinsics[:, 1, 1] * zoom
        intrinsics[:, :2, 2] = self.intrinsics[:, :2, 2] + moved
        stretch = intrinsics.diagonal(dim1=1, dim2=2)[:, :2].mean(1) / self.base_focal
        unit = log_size.exp() * self.typical
        rotations = matrix_from_axis_angle(pose[:, :3]) @ self.poses[:, :3, :3]
        held = held_points(self.data.sizes, intrinsics, unit * stretch)
        centres = self.held + self.unit * pose[:, 3:] - (rotations @ held[..., None]).squeeze(-1)
        world = torch.where(self.freedom.pose[:, None, None], rigid(rotations, centres), self.poses)
        view = self.data.view_of_anchor
        anchors = unit[view] * (stretch[view] + self.share - 1)
        return SparseScene(intrinsics.float(), world.float(), anchors.float()), log_size

    def minimise(self, stage: Stage, start: Float[Tensor, "size"], progress: Progress | None) -> Float[Tensor, "size"]:
        """Unknowns at the minimum of a stage; the coarse one moves poses and sizes only."""
        free = 7 * self.views if stage == "coarse" else self.size
        scale = self._scale(stage, start)[:free]
        evaluations = 0

        def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal evaluations
            evaluations += 1
            if progress is not None:
                progress("aligning", evaluations, _ITERATIONS[stage])
            if stage == "fine":
                with torch.no_grad():
                    moved = torch.cat([start[:free] + scale * torch.from_numpy(values), start[free:]])
                    self.solve_depths(moved, _DEPTH_STEPS, _SMOOTHING[stage])
            unknowns = (start[:free] + scale * torch.from_numpy(values)).requires_grad_()
            loss = self._loss(stage, torch.cat([unknowns, start[free:]]))
            (gradient,) = torch.autograd.grad(loss, unknowns)
            return float(loss.detach()), (scale * gradient).numpy()

        options = {"maxiter": _ITERATIONS[stage], "maxcor": 20, "ftol": 1e-7, "gtol": 0}
        found = minimize(objective, np.zeros(free), jac=True, method="L-BFGS-B", options=options)
        return torch.cat([start[:free] + scale * torch.from_numpy(found.x), start[free:]])

    def solve_depths(self, unknowns: Float[Tensor, "size"], steps: int, smoothing: float) -> None:
        """Move the depths of the anchors towards the minimum of the fine loss for these cameras."""
        data = self.data
        scene, log_size = self.decode(unknowns)
        origin, direction = projected_rays(scene, data)
        depth, pixel = scene.depth, data.pixel.flip(1)
        view, size = data.view_of_anchor, log_size.exp() * self.typical
        stretch = scene.focal.double() / self.base_focal
        canonical = (size[view] * (stretch[view] + self.canonical_share - 1)).float()
        prior = _DEPTH_PRIOR * self.confidence / canonical.square()
        for _ in range(steps):
            seen = origin + depth[data.anchor][..., None] * direction
            where = projected(seen)
            slope = (direction[..., :2] - where * direction[..., 2:]) / seen[..., 2:].clamp(min=LEAST_PROJECTED_DEPTH)
            error = pixel - where
            pull = data.confidence[:, None] * _reweighting(error, PUBLISHED.fine_exponent, smoothing)
            step, stiffness = prior * (canonical - depth), prior.clone()
            step.index_add_(0, data.anchor.flatten(), (pull * (slope * error).sum(-1)).flatten())
            stiffness.index_add_(0, data.anchor.flatten(), (pull * slope.square().sum(-1)).flatten())
            limit = _LARGEST_DEPTH_STEP * depth.abs()
            depth = depth + (step / stiffness).clamp(-limit, limit)
        self.share = depth.double() / size[view] - stretch[view] + 1

    def _residuals(self, stage: Stage, unknowns: Float[Tensor, "size"]) -> Float[Tensor, "rows channels"]:
        """Errors of all matches: in 3D in units of the mean size of the views, so that shrinking gains nothing."""
        scene, log_size = self.decode(unknowns)
        if stage == "fine":
            return fine_residuals(scene, self.data).flatten(0, 1)
        growth = (log_size.mean() - self.log_size.mean()).exp()
        return coarse_residuals(scene, self.data) / (self.unit * growth).float()

    def _cost(self, stage: Stage, residuals: Float[Tensor, "rows channels"]) -> Float[Tensor, ""]:
        cost = soft_power(_smoothed(residuals, _SMOOTHING[stage]), _exponent(stage))
        weight = self._weight(stage)
        return (weight * cost).sum(dtype=torch.float64) / weight.sum(dtype=torch.float64)

    def _loss(self, stage: Stage, unknowns: Float[Tensor, "size"]) -> Float[Tensor, ""]:
        return self._cost(stage, self._residuals(stage, unknowns))

    def _weight(self, stage: Stage) -> Float[Tensor, "rows"]:
        return self.data.confidence.repeat_interleave(2) if stage == "fine" else self.data.confidence

    def _scale(self, stage: Stage, start: Float[Tensor, "size"]) -> Float[Tensor, "size"]:
        """Step of every unknown that changes the loss about equally: the root of the inverse Gauss-Newton diagonal.

        The diagonal is estimated by probing the Jacobian with random signs (Hutchinson).
        """
        unknowns = start.clone().requires_grad_()
        residuals = self._residuals(stage, unknowns)
        weight = self._weight(stage)
        pull = weight / weight.sum() * _reweighting(residuals.detach(), _exponent(stage), _SMOOTHING[stage])
        root = pull.sqrt()[:, None]
        generator = torch.Generator().manual_seed(0)
        diagonal = torch.zeros_like(start)
        for _ in range(_PROBES):
            signs = torch.randint(0, 2, residuals.shape, generator=generator) * 2 - 1
            (probe,) = torch.autograd.grad(residuals, unknowns, root * signs, retain_graph=True)
            diagonal += probe.square() / _PROBES
        parts = [part + _LEAST_CURVATURE * part.mean() for part in diagonal.split(self.parts) if len(part)]
        return torch.cat(parts).clamp(min=1e-20).rsqrt()


def _exponent(stage: Stage) -> float:
    return PUBLISHED.fine_exponent if stage == "fine" else PUBLISHED.coarse_exponent


def _smoothed(residuals: Float[Tensor, "*rows channels"], smoothing: float) -> Float[Tensor, "*rows"]:
    return (residuals.square().sum(-1) + smoothing**2).sqrt()


def _reweighting(
    residuals: Float[Tensor, "*rows channels"], exponent: float, smoothing: float
) -> Float[Tensor, "*rows"]:
    """Weight that makes squares of the residuals have the gradient of the loss (iterative reweighting)."""
    distance = _smoothed(residuals, smoothing)
    return exponent * (distance + power_shift(exponent)) ** (exponent - 1) / distance


def _groups(free: Bool[Tensor, "views"], shared: bool) -> tuple[Int[Tensor, "views"], int]:
    """Unknown of every view and how many there are; fixed views refer to one past the last."""
    count = min(1, int(free.sum())) if shared else int(free.sum())
    number = torch.zeros(len(free), dtype=torch.int64) if shared else free.long().cumsum(0) - 1
    return torch.where(free, number, torch.full_like(number, count)), count
