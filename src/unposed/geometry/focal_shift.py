"""Focal length and z shift of a pointmap that is known up to a shift along z (MoGe, section 3.1, equation 4).

With s the shift and q = (x, y) / (z + s) the picture of a point, the sum over samples of ``|f q - uv|^2`` is minimised.
The best f is closed form, so one unknown is left; its derivatives are sums of powers of 1 / (z + s), and a safeguarded
Newton iteration solves a whole batch where it is, on the device.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from unposed.geometry.view_plane import view_axes

SAMPLES = 64
"""The problem is solved on this many rows and columns of samples."""
_ITERATIONS = 40
_CONVERGED = 1e-7
"""A step below this share of the mean depth is not taken and ends the iteration; Newton's error is its square."""
_COARSE = 8
"""Every so many-th sample serves to find a place to start from."""


class FocalShift(NamedTuple):
    """A focal length and a shift for every pointmap."""

    focal: Float[Tensor, "batch"]
    """In units of half the picture's diagonal; 1 where fewer than two samples are valid."""
    shift: Float[Tensor, "batch"]
    """To be added to z, in the units of the points; 0 where fewer than two samples are valid."""


def recover_focal_shift(
    points: Float[Tensor, "batch height width 3"],
    mask: Bool[Tensor, "batch height width"] | None = None,
    aspect: float | None = None,
) -> FocalShift:
    """Focal length and shift of pointmaps whose principal point is the centre and whose pixels are square.

    ``aspect`` is the picture's width / height, by default that of the map. z should be positive: the search starts at
    shift 0 and stays where all points are in front of the camera.
    """
    height, width = points.shape[1:3]
    u, v = view_axes(height, width, aspect or width / height, points.device, points.dtype)
    rows, columns = _sampled_places(points)
    targets = torch.stack(torch.meshgrid(u[columns], v[rows], indexing="xy"), -1)
    return _solve(points, targets[None], mask, _free_focal)


def recover_shift(
    points: Float[Tensor, "batch height width 3"],
    rays: Float[Tensor, "batch height width 2"],
    mask: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, "batch"]:
    """Shift of pointmaps whose camera is known: ``rays`` are the slopes (x / z, y / z) of every pixel."""
    return _solve(points, sampled(rays), mask, _fixed_focal).shift


def sampled(maps: Float[Tensor, "batch height width *channels"]) -> Tensor:
    """``SAMPLES`` x ``SAMPLES`` of the values of a map, nearest, whatever its size."""
    rows, columns = _sampled_places(maps)
    return maps.index_select(1, rows).index_select(2, columns)


def _sampled_places(maps: Tensor) -> tuple[Int64[Tensor, "rows"], Int64[Tensor, "columns"]]:
    rows, columns = (torch.arange(SAMPLES, device=maps.device) * length // SAMPLES for length in maps.shape[1:3])
    return rows, columns


class _Problem(NamedTuple):
    """Sums over samples as functions of the shift; what is masked weighs nothing."""

    factors: Float[Tensor, "batch 2 samples"]
    """(x, y) . target, and |(x, y)|^2."""
    z: Float[Tensor, "batch samples"]
    energy0: Float[Tensor, "batch"]
    """Sum of |target|^2."""

    def moments(self, shift: Float[Tensor, "batch"]) -> Float[Tensor, "batch 2 4"]:
        """Sums of ``factors`` times 1 / (z + shift) to the power 1, 2, 3, 4."""
        powers = self.z.new_empty(len(self.z), 4, self.z.shape[1])
        torch.add(self.z, shift[:, None], out=powers[:, 0]).reciprocal_()
        for k in (1, 2, 3):
            torch.mul(powers[:, k - 1], powers[:, 0], out=powers[:, k])
        return self.factors @ powers.mT


class _State(NamedTuple):
    energy: Float[Tensor, "batch"]
    step: Float[Tensor, "batch"]
    """Newton's, or Gauss-Newton's where the energy is not convex."""
    focal: Float[Tensor, "batch"]

    def replaced(self, where: Bool[Tensor, "batch"], new: "_State") -> "_State":
        """The new state in some rows."""
        return _State(*(torch.where(where, there, here) for there, here in zip(new, self, strict=True)))


def _free_focal(moments: Float[Tensor, "batch 2 4"], energy0: Float[Tensor, "batch"]) -> _State:
    """Energy T - B^2 / C with B = sum q . target and C = sum q . q, and its derivatives in the shift."""
    b, b1, b2, c, c1, c2, slope = _derivatives(moments)
    focal = b / c
    focal1 = (b1 - focal * c1) / c
    gradient = -2 * focal * b1 + focal * focal * c1
    curvature = -2 * focal1 * b1 - 2 * focal * b2 + 2 * focal * focal1 * c1 + focal * focal * c2
    gauss_newton = 2 * (focal1 * focal1 * c + focal * focal1 * c1 + focal * focal * slope)
    return _State(energy0 - focal * b, _step(gradient, curvature, gauss_newton), focal)


def _fixed_focal(moments: Float[Tensor, "batch 2 4"], energy0: Float[Tensor, "batch"]) -> _State:
    """Energy C - 2 B + T for targets in units of the focal length."""
    b, b1, b2, c, c1, c2, slope = _derivatives(moments)
    return _State(energy0 - 2 * b + c, _step(c1 - 2 * b1, c2 - 2 * b2, 2 * slope), torch.ones_like(b))


def _derivatives(moments: Float[Tensor, "batch 2 4"]) -> tuple[Tensor, ...]:
    """B, C and their first two derivatives, and the sum of |dq / ds|^2; one more in the exponent per derivative."""
    p, r = moments.unbind(1)
    c, slope = r[:, 1].clamp(min=1e-300 if r.dtype == torch.float64 else 1e-30), r[:, 3]
    return p[:, 0], -p[:, 1], 2 * p[:, 2], c, -2 * r[:, 2], 6 * r[:, 3], slope


def _step(gradient: Tensor, curvature: Tensor, gauss_newton: Tensor) -> Tensor:
    convex = curvature > 1e-3 * gauss_newton
    return -gradient / torch.where(convex, curvature, gauss_newton.clamp(min=1e-30))


@torch.no_grad()
def _solve(
    points: Float[Tensor, "batch height width 3"],
    targets: Float[Tensor, "_ rows columns 2"],
    mask: Bool[Tensor, "batch height width"] | None,
    evaluate: Callable[[Tensor, Tensor], _State],
) -> FocalShift:
    """Solve for sampled ``targets``; every map of a batch, or one for all."""
    exact = torch.float32 if points.device.type == "mps" else torch.float64
    x, y, z = sampled(points).flatten(1, 2).to(exact).permute(2, 0, 1).contiguous()
    u, v = targets.flatten(1, 2).to(exact).permute(2, 0, 1).contiguous()
    dots, squares, lengths = x * u + y * v, x * x + y * y, (u * u + v * v).expand_as(x)
    nearest = z
    if mask is not None:
        valid = sampled(mask).flatten(1)
        dots, squares, lengths = (torch.where(valid, values, 0.0) for values in (dots, squares, lengths))
        z, nearest = torch.where(valid, z, 1.0), torch.where(valid, z, torch.inf)
        enough = valid.sum(1) >= 2
    problem = _Problem(torch.stack([dots, squares], 1), z, lengths.sum(1))
    closest = nearest.amin(1)
    lowest = torch.where(closest > 0, -closest, -torch.inf)
    shift, focal = _newton(problem, *_start(problem, lowest, evaluate), lowest, evaluate)
    if mask is not None:
        focal, shift = torch.where(enough, focal, 1.0), torch.where(enough, shift, 0.0)
    return FocalShift(focal.to(points.dtype), shift.to(points.dtype))


def _start(
    problem: _Problem, lowest: Float[Tensor, "batch"], evaluate: Callable[[Tensor, Tensor], _State]
) -> tuple[Float[Tensor, "batch"], _State]:
    """The solution of a few of the samples where it is better than shift 0 and all points are in front, else 0."""
    zero = torch.zeros_like(lowest)
    few = _Problem(problem.factors[..., ::_COARSE].contiguous(), problem.z[:, ::_COARSE].contiguous(), zero)
    coarse = _newton(few, zero, evaluate(few.moments(zero), zero), lowest, evaluate)[0]
    before, after = (evaluate(problem.moments(shift), problem.energy0) for shift in (zero, coarse))
    better = lowest.isfinite() & (after.energy < before.energy)
    return torch.where(better, coarse, zero), before.replaced(better, after)


def _newton(
    problem: _Problem,
    shift: Float[Tensor, "batch"],
    state: _State,
    lowest: Float[Tensor, "batch"],
    evaluate: Callable[[Tensor, Tensor], _State],
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"]]:
    """Shift of the minimum that is downhill from ``shift``, where the ``state`` is known, and the focal there.

    A step that leaves the half space in front of the camera or does not go down is tried again at a quarter.
    """
    small = _CONVERGED * problem.z.abs().mean(1)
    step = state.step
    for _ in range(_ITERATIONS):
        done = ~(step.abs() > small)
        if done.all():
            break
        trial = evaluate(problem.moments(shift + step), problem.energy0)
        better = (shift + step > lowest) & (trial.energy <= state.energy) & ~done
        shift = torch.where(better, shift + step, shift)
        state = state.replaced(better, trial)
        step = torch.where(better, state.step, torch.where(done, 0.0, step / 4))
    return shift, state.focal
