"""The last step of placing a camera by known points: refinement, what it leaves uncertain, and whether it is chance.

Perturbations of a pose are in the camera frame, a turn about the camera centre and a shift of the centre in units of
the typical depth: ``x_camera -> exp(turn) x_camera + depth * shift``.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from scipy.special import gammaln
from torch import Tensor

from unposed.geometry.cameras import project
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import invert_rigid, rigid, transform_points

_STEPS = 20
_MEDIAN_OF_RAYLEIGH = 1.1774  # median length of a 2D normal error, in standard deviations of a coordinate
_LEAST_NOISE = 1 / 30  # of the limit: a few points that happen to fit exactly were not measured better than this
_CELLS = 16  # along the long side of the image
_SAMPLE = 3  # correspondences that determine a pose


@dataclass(frozen=True, eq=False)
class Resection:
    """A refined camera with the standard deviations that its inliers leave."""

    world_from_camera: Float[Tensor, "4 4"]
    """float64."""
    intrinsics: Float[Tensor, "3 3"]
    """float64."""
    inliers: Bool[Tensor, "n"]
    """Correspondences within the limit, in front of the camera."""
    noise: float
    """Standard deviation of an inlier's pixel coordinate, in pixels."""
    rotation_sigma: float
    """Root of the summed variances of the three rotation angles, in degrees."""
    position_sigma: float
    """Root of the summed variances of the camera centre's coordinates, in world units."""


def refine_resection(
    pixels: Float[Tensor, "n 2"],
    points: Float[Tensor, "n 3"],
    intrinsics: Float[Tensor, "3 3"],
    world_from_camera: Float[Tensor, "4 4"],
    image_size: tuple[int, int],
    limit: float,
    focal_spread: float = 0.0,
) -> Resection | None:
    """Gauss-Newton on the reprojection errors below ``limit`` pixels, with Cauchy weights at three times their noise.

    The covariance is ``noise^2 (J^T W J)^-1`` at the solution, where the inliers of one cell of a 16th of the image's
    long side count as one: what is wrong with a point (its place, the lens) is wrong with its neighbours too. Counted
    one by one, ten thousand matches promised five times less than the errors measured on real photos.

    Args:
        pixels: observed pixels of the photo.
        points: the world points they show.
        intrinsics: K of the photo.
        world_from_camera: pose to start from.
        image_size: (height, width) of the photo.
        limit: reprojection error in pixels beyond which a correspondence is an outlier.
        focal_spread: standard deviation of the logarithm of the focal length about the given one; 0 keeps it, infinity
            means that nothing is known of it.

    Returns:
        None where too few inliers determine the camera.
    """
    pixels, points, k = pixels.double(), points.double(), intrinsics.double().clone()
    pose = invert_rigid(world_from_camera.double())
    free_focal, zoom = focal_spread > 0, 0.0
    for _ in range(_STEPS):
        system = _linearise(pixels, points, k, pose, limit)
        information, gradient = _normal_equations(system, zoom if free_focal else None, focal_spread)
        if int(system.inliers.sum()) < _SAMPLE + 1 or int(torch.linalg.matrix_rank(information)) < len(information):
            return None
        step = -torch.linalg.solve(information, gradient)
        turn = matrix_from_axis_angle(step[:3])
        pose = rigid(turn @ pose[:3, :3], turn @ pose[:3, 3] + system.depth * step[3:6])
        if free_focal:
            zoom += float(step[6])
            k[0, 0], k[1, 1] = k[0, 0] * step[6].exp(), k[1, 1] * step[6].exp()
        if float(step.abs().max()) < 1e-10:
            break
    system = _linearise(pixels, points, k, pose, limit)
    independent = replace(system, weight=system.weight / _neighbours(pixels, system.inliers, max(image_size) / _CELLS))
    information, _ = _normal_equations(independent, zoom if free_focal else None, focal_spread)
    if not bool(pose.isfinite().all() & k.isfinite().all()) or int(system.inliers.sum()) < _SAMPLE + 1:
        return None
    variance = torch.linalg.pinv(information, hermitian=True).diagonal()
    return Resection(
        world_from_camera=invert_rigid(pose),
        intrinsics=k,
        inliers=system.inliers,
        noise=system.noise,
        rotation_sigma=math.degrees(math.sqrt(float(variance[:3].sum().clamp(min=0)))),
        position_sigma=system.depth * math.sqrt(float(variance[3:6].sum().clamp(min=0))),
    )


@dataclass(frozen=True, eq=False)
class _System:
    """Residuals (n, 2) in units of the noise, their Jacobian (n, 2, 7), robust weights (n,) and who counts."""

    residual: Tensor
    jacobian: Tensor
    weight: Tensor
    inliers: Tensor
    noise: float
    depth: float
    """Median depth of the inliers: the unit of a shift."""


def _linearise(pixels: Tensor, points: Tensor, k: Tensor, pose: Tensor, limit: float) -> _System:
    """Columns of the Jacobian: turn (3), shift (3), logarithm of the focal length."""
    camera_points = transform_points(pose, points)
    residual = project(camera_points, k) - pixels
    length = residual.norm(dim=-1)
    inliers = (camera_points[:, 2] > 0) & (length <= limit)
    noise, depth = _LEAST_NOISE * limit, 1.0
    if inliers.any():
        noise = max(noise, float(length[inliers].median()) / _MEDIAN_OF_RAYLEIGH)
        depth = float(camera_points[inliers, 2].median())
    x, y, z = camera_points.unbind(-1)
    z = z.clamp(min=1e-3 * depth)
    fx, fy, zero = k[0, 0], k[1, 1], torch.zeros_like(z)
    by_point = torch.stack(
        [torch.stack([fx / z, zero, -fx * x / z**2], -1), torch.stack([zero, fy / z, -fy * y / z**2], -1)], -2
    )
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    by_focal = torch.stack([fx * x / z, fy * y / z], -1)[..., None]
    jacobian = torch.cat([by_point @ -cross, depth * by_point, by_focal], -1) / noise
    weight = torch.where(inliers, 1 / (1 + (length / (3 * noise)).square()), 0.0)
    return _System(residual / noise, jacobian, weight, inliers, noise, depth)


def _normal_equations(system: _System, zoom: float | None, focal_spread: float) -> tuple[Tensor, Tensor]:
    """Information matrix and gradient; ``zoom`` is the logarithm of focal over first focal, None when it is fixed."""
    jacobian = system.jacobian if zoom is not None else system.jacobian[..., :6]
    weighted = (jacobian * system.weight[:, None, None]).flatten(0, 1)
    information, gradient = weighted.T @ jacobian.flatten(0, 1), weighted.T @ system.residual.flatten()
    if zoom is not None:
        information[6, 6] += 1 / focal_spread**2
        gradient[6] += zoom / focal_spread**2
    return information, gradient


def _neighbours(pixels: Tensor, inliers: Tensor, cell: float) -> Tensor:
    """How many inliers (at least 1) share the cell of each pixel."""
    _, index = (pixels / cell).floor().long().unique(dim=0, return_inverse=True)
    return torch.bincount(index[inliers], minlength=int(index.max()) + 1)[index].clamp(min=1)


def significance(count: int, inliers: int, limit: float, image_size: tuple[int, int]) -> float:
    """-log10 of the number of poses with so many inliers expected among ``count`` correspondences by chance.

    A chance correspondence is one whose point projects anywhere in the image of (height, width) pixels with equal
    probability; the pose is fixed by three of them (a-contrario RANSAC: Moisan and Stival, IJCV 2004).
    """
    if inliers <= _SAMPLE or count <= _SAMPLE:
        return 0.0
    chance = min(1.0, math.pi * limit**2 / (image_size[0] * image_size[1]))
    log_tests = math.log(count - _SAMPLE) + _log_choose(count, inliers) + _log_choose(inliers, _SAMPLE)
    return -(log_tests + (inliers - _SAMPLE) * math.log(chance)) / math.log(10)


def _log_choose(n: int, k: int) -> float:
    return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
