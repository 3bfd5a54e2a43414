"""Minimise DUSt3R's alignment objective over cameras, focals and pair frames, with the depths eliminated.

For fixed cameras and pair frames the best depth of a pixel is a one-dimensional weighted geometric median, which a few
Weiszfeld steps give. What remains is a smooth function of 6 numbers per camera, one focal, and 7 numbers per pair; by
the envelope theorem its gradient takes the depths as constants. Rotations and translations act about the centre of the
points they move, which decouples them, and L-BFGS does the rest.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from torch import Tensor

from unposed.align.sampling import Progress, Samples
from unposed.geometry.cameras import backproject
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import invert_rigid, rigid

SMOOTHING = 1e-3
"""Distances are smoothed at zero by this, as a fraction of the scene's median depth."""
_ITERATIONS = 300
_MEDIAN_STEPS = 4
_FIRST_MEDIAN_STEPS = 20
LEAST_DEPTH = 1e-6
_LEAST_WEIGHT = 1e-6
"""Weight that every observation has in a depth at least, relative to the largest: no pixel is without."""


@dataclass(frozen=True, eq=False)
class Solution:
    """Cameras and pair frames of one component."""

    world_from_camera: Float[Tensor, "views 4 4"]
    intrinsics: Float[Tensor, "views 3 3"]
    world_from_pair: Float[Tensor, "pairs 4 4"]
    """Similarity from the frame of a pair's predictions (camera i, its own scale) to the world."""

    @property
    def pair_scale(self) -> Float[Tensor, "pairs"]:
        """World length of a unit of every pair."""
        return torch.linalg.det(self.world_from_pair[:, :3, :3]).abs().pow(1 / 3)


def refine(
    samples: Samples,
    start: Solution,
    free_focal: Bool[Tensor, "views"],
    shared_focal: bool,
    fixed_pose: Bool[Tensor, "views"],
    progress: Progress | None = None,
) -> Solution:
    """Minimum of the objective over the samples near ``start``.

    The geometric mean of the pair scales stays what it is, unless ``fixed_pose`` holds two cameras or more, whose
    distance sets the scale: then the objective is divided by that mean, since else it would shrink the scene towards
    the cameras for nothing. ``shared_focal`` moves all free focals by one factor.
    """
    problem = _Problem(samples, start, free_focal, shared_focal, fixed_pose)
    evaluations = 0

    def objective(unknowns: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal evaluations
        evaluations += 1
        if progress is not None:
            progress("aligning", min(evaluations, _ITERATIONS), _ITERATIONS)
        return problem.value_and_gradient(unknowns)

    options = {"maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS, "maxcor": 20, "ftol": 1e-7, "gtol": 0}
    result = minimize(objective, np.zeros(problem.size), jac=True, method="L-BFGS-B", options=options)
    if progress is not None:
        progress("aligning", _ITERATIONS, _ITERATIONS)
    return problem.solution(result.x)


class _Problem:
    """The objective of one component as a function of a vector of increments on the start.

    Increments: 6 per view (turn, shift of the points it sees), 7 per pair (turn, shift, log scale), log focals. Shifts
    are in units of the scene's median depth.
    """

    def __init__(
        self,
        samples: Samples,
        start: Solution,
        free_focal: Bool[Tensor, "views"],
        shared_focal: bool,
        fixed_pose: Bool[Tensor, "views"],
    ) -> None:
        self.samples, self.view, self.pair = samples, samples.view_of_map, samples.pair_of_map
        self.views, self.pairs = len(samples.pixels), len(samples.pairs)
        self.cameras = start.world_from_camera.double()
        self.intrinsics = start.intrinsics.double()
        self.frames = start.world_from_pair.double()
        self.free_pose = (~fixed_pose).double()[:, None]
        self.log_scale = start.pair_scale.double().log().mean()
        self.free_scale = int(fixed_pose.sum()) > 1
        self.focal_of_view, self.focals = _focal_groups(free_focal, shared_focal)
        self.size = 6 * self.views + 7 * self.pairs + self.focals
        rays, maps = self._rays(self.intrinsics), self._maps_in_camera(self.cameras, self.frames)
        self.smoothing = SMOOTHING * float(maps[..., 2].median())
        self.depth = torch.ones(rays.shape[:2])
        self.depth = self._solve_depth(rays, maps, _FIRST_MEDIAN_STEPS)
        self.unit = float(self.depth.median())
        self.smoothing = SMOOTHING * self.unit
        self.camera_centre = _centroid(rays * self.depth[..., None], self._per_view(samples.weight)).double()
        half = self.pairs
        points = torch.cat([samples.points[:half], samples.points[half:]], 1)
        weight = torch.cat([samples.weight[:half], samples.weight[half:]], 1)
        self.pair_centre = _centroid(points, weight).double()

    def solution(self, unknowns: np.ndarray) -> Solution:
        """The solution at the increments, in float32."""
        cameras, intrinsics, frames = self._decode(torch.from_numpy(unknowns))
        return Solution(cameras.float(), intrinsics.float(), frames.float())

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """Objective, with the depths at their minimum, and its gradient."""
        unknowns = torch.from_numpy(values).requires_grad_()
        cameras, intrinsics, frames = self._decode(unknowns)
        rays, maps = self._rays(intrinsics), self._maps_in_camera(cameras, frames)
        with torch.no_grad():
            self.depth = self._solve_depth(rays, maps, _MEDIAN_STEPS)
        residual = (self.depth[..., None] * rays)[self.view] - maps
        distance = (residual.square().sum(-1) + self.smoothing**2).sqrt()
        growth = torch.linalg.det(frames[:, :3, :3]).abs().log().mean() / 3 - self.log_scale
        loss = (distance * self.samples.weight).sum(dtype=torch.float64) * (-growth).exp()
        (gradient,) = torch.autograd.grad(loss, unknowns)
        return float(loss.detach()), gradient.numpy()

    def _decode(self, unknowns: Float[Tensor, "size"]) -> tuple[Tensor, Tensor, Tensor]:
        """(world_from_camera, intrinsics, world_from_pair) at the increments, differentiable, in float64."""
        pose, pair, focal = unknowns.split([6 * self.views, 7 * self.pairs, self.focals])
        pose, pair = pose.reshape(-1, 6) * self.free_pose, pair.reshape(-1, 7)
        log_scale = pair[:, 6] if self.free_scale else pair[:, 6] - pair[:, 6].mean()
        cameras = _turn_about(self.cameras, self.camera_centre, pose * self._units())
        frames = _turn_about(self.frames, self.pair_centre, pair[:, :6] * self._units(), log_scale.exp())
        zoom = torch.cat([focal, focal.new_zeros(1)])[self.focal_of_view].exp()
        stretch = torch.stack([zoom, zoom, torch.ones_like(zoom)], -1)
        diagonal = self.intrinsics.diagonal(dim1=1, dim2=2)
        return cameras, self.intrinsics + torch.diag_embed(diagonal * (stretch - 1)), frames

    def _units(self) -> Float[Tensor, "6"]:
        return torch.tensor([1.0] * 3 + [self.unit] * 3, dtype=torch.float64)

    def _maps_in_camera(self, cameras: Tensor, frames: Tensor) -> Float[Tensor, "maps samples 3"]:
        """Every map's points in the camera of the view they are of."""
        transform = (invert_rigid(cameras)[self.view] @ frames[self.pair]).float()
        return torch.baddbmm(transform[:, None, :3, 3], self.samples.points, transform[:, :3, :3].mT)

    def _rays(self, intrinsics: Float[Tensor, "views 3 3"]) -> Float[Tensor, "views samples 3"]:
        """Camera-frame points at depth 1 behind the sampled pixels."""
        return backproject(self.samples.pixels, torch.ones(self.samples.pixels.shape[:2]), intrinsics.float())

    def _per_view(self, values: Float[Tensor, "maps samples"]) -> Float[Tensor, "views samples"]:
        """Sum of the maps of every view."""
        return values.new_zeros(self.views, values.shape[1]).index_add_(0, self.view, values)

    def _solve_depth(
        self, rays: Float[Tensor, "views samples 3"], maps: Float[Tensor, "maps samples 3"], steps: int
    ) -> Float[Tensor, "views samples"]:
        """Depths that minimise the distances of all maps, from the last ones, by Weiszfeld's algorithm."""
        along, across = depth_observations(rays[self.view], maps)
        across = across + (self.smoothing**2 / rays.square().sum(-1))[self.view]
        weight, depth = self.samples.weight + _LEAST_WEIGHT * self.samples.weight.max(), self.depth
        for _ in range(steps):
            pull = weight / ((depth[self.view] - along).square() + across).sqrt()
            depth = self._per_view(pull * along) / self._per_view(pull)
        return depth.clamp(min=LEAST_DEPTH)


def depth_observations(
    rays: Float[Tensor, "*batch 3"], points: Float[Tensor, "*batch 3"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Depth d on each ray that is nearest to a point, and the squared distance there, in units of the ray's length.

    The distance from any depth on the ray is ``|ray| sqrt((depth - d)^2 + squared distance)``.
    """
    square = rays.square().sum(-1)
    along = (rays * points).sum(-1) / square
    return along, (points - along[..., None] * rays).square().sum(-1) / square


def _turn_about(
    transform: Float[Tensor, "n 4 4"],
    centre: Float[Tensor, "n 3"],
    increment: Float[Tensor, "n 6"],
    scale: Float[Tensor, "n"] | None = None,
) -> Float[Tensor, "n 4 4"]:
    """Transforms after their points turn (and grow) about where ``centre`` (in the source frame) goes, then shift."""
    turn = matrix_from_axis_angle(increment[:, :3])
    linear = turn @ transform[:, :3, :3]
    if scale is not None:
        linear = scale[:, None, None] * linear
    goal = (transform[:, :3, :3] @ centre[..., None]).squeeze(-1) + transform[:, :3, 3] + increment[:, 3:]
    return rigid(linear, goal - (linear @ centre[..., None]).squeeze(-1))


def _centroid(points: Float[Tensor, "n samples 3"], weight: Float[Tensor, "n samples"]) -> Float[Tensor, "n 3"]:
    share = weight / weight.sum(1, keepdim=True).clamp(min=1e-20)
    return (share[..., None] * points).sum(1)


def _focal_groups(free: Bool[Tensor, "views"], shared: bool) -> tuple[Int[Tensor, "views"], int]:
    """Unknown focal of every view and how many there are; fixed views refer to one past the last."""
    count = min(1, int(free.sum())) if shared else int(free.sum())
    number = torch.zeros(len(free), dtype=torch.int64) if shared else free.long().cumsum(0) - 1
    return torch.where(free, number, torch.full_like(number, count)), count
