"""Focal length and z shift of a pointmap that is known up to a shift along z (MoGe, section 3.1, equation 4).

With s the shift and q = (x, y) / (z + s) the picture of a point, the sum over samples of ``|f q - uv|^2`` is minimised.
The best f is closed form, so one unknown is left; its derivatives are sums of powers of 1 / (z + s), and a safeguarded
Newton iteration solves a whole batch where it is, on the device.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.geometry.view_plane import view_plane

SAMPLES = 64
"""The problem is solved on this many rows and columns of samples."""
_ITERATIONS = 40
_CONVERGED = 1e-10
"""A step below this share of the mean depth ends the iteration."""


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
    targets = view_plane(height, width, aspect or width / height, points.device, points.dtype)
    return _solve(points, targets.expand(len(points), -1, -1, -1), mask, _free_focal)


def recover_shift(
    points: Float[Tensor, "batch height width 3"],
    rays: Float[Tensor, "batch height width 2"],
    mask: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, "batch"]:
    """Shift of pointmaps whose camera is known: ``rays`` are the slopes (x / z, y / z) of every pixel."""
    return _solve(points, rays, mask, _fixed_focal).shift


def sampled(maps: Float[Tensor, "batch height width *channels"]) -> Tensor:
    """``SAMPLES`` x ``SAMPLES`` of the values of a map, nearest, whatever its size."""
    rows, columns = (torch.arange(SAMPLES, device=maps.device) * length // SAMPLES for length in maps.shape[1:3])
    return maps[:, rows[:, None], columns]


class _Problem(NamedTuple):
    """Sums over samples as functions of the shift; what is masked weighs nothing."""

    dots: Float[Tensor, "batch samples"]
    """(x, y) . target."""
    squares: Float[Tensor, "batch samples"]
    """|(x, y)|^2."""
    z: Float[Tensor, "batch samples"]
    energy0: Float[Tensor, "batch"]
    """Sum of |target|^2."""

    def moments(self, shift: Float[Tensor, "batch"]) -> Float[Tensor, "batch 2 4"]:
        """Sums of ``dots`` and ``squares`` times 1 / (z + shift) to the power 1, 2, 3, 4."""
        w = (self.z + shift[:, None]).reciprocal()
        w2 = w * w
        return torch.stack([self.dots, self.squares], 1) @ torch.stack([w, w2, w2 * w, w2 * w2], 2)


class _State(NamedTuple):
    energy: Float[Tensor, "batch"]
    step: Float[Tensor, "batch"]
    """Newton's, or Gauss-Newton's where the energy is not convex."""
    focal: Float[Tensor, "batch"]


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


def _solve(
    points: Float[Tensor, "batch height width 3"],
    targets: Float[Tensor, "batch height width 2"],
    mask: Bool[Tensor, "batch height width"] | None,
    evaluate: Callable[[Tensor, Tensor], _State],
) -> FocalShift:
    if mask is None:
        mask = torch.ones(points.shape[:3], dtype=torch.bool, device=points.device)
    valid = sampled(mask).flatten(1)
    exact = torch.float32 if points.device.type == "mps" else torch.float64
    xyz, uv = (sampled(maps).flatten(1, 2).to(exact) for maps in (points, targets))
    enough = valid.sum(1) >= 2
    xyz = torch.where(valid[..., None], xyz, xyz.new_tensor([0.0, 0.0, 1.0]))
    xy, z = xyz[..., :2], xyz[..., 2]
    weighted = torch.where(valid[..., None], uv, 0.0)
    problem = _Problem((xy * weighted).sum(-1), xy.square().sum(-1), z, weighted.square().sum((1, 2)))
    shift, focal = _newton(problem, torch.where(valid, z, torch.inf), evaluate)
    ones = torch.ones_like(focal)
    return FocalShift(
        torch.where(enough, focal, ones).to(points.dtype), torch.where(enough, shift, 0 * ones).to(points.dtype)
    )


def _newton(
    problem: _Problem, z_or_far: Float[Tensor, "batch samples"], evaluate: Callable[[Tensor, Tensor], _State]
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"]]:
    """Shift of the minimum that is downhill from 0, and the focal there.

    A step that leaves the half space in front of the camera or does not go down is tried again at a quarter.
    """
    nearest = z_or_far.amin(1)
    lowest = torch.where(nearest > 0, -nearest, -torch.inf)
    small = _CONVERGED * problem.z.abs().mean(1)
    shift = torch.zeros_like(nearest)
    state = evaluate(problem.moments(shift), problem.energy0)
    step, done = state.step, torch.zeros_like(nearest, dtype=torch.bool)
    for _ in range(_ITERATIONS):
        trial = evaluate(problem.moments(shift + step), problem.energy0)
        better = (shift + step > lowest) & (trial.energy <= state.energy) & ~done
        shift = torch.where(better, shift + step, shift)
        state = _State(*(torch.where(better, new, old) for new, old in zip(trial, state, strict=True)))
        step = torch.where(better, state.step, step / 4)
        done = done | ~(step.abs() > small)
        if done.all():
            break
    return shift, state.focal
