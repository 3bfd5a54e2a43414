"""Epipolar geometry of two pinhole cameras whose pixels are counted from their principal points; numpy, doubles."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Array = NDArray[np.float64]


def rays(x: Array, focal: float) -> Array:
    """Directions (n, 3) with z = 1 of centred pixels (n, 2)."""
    return np.concatenate([x / focal, np.ones_like(x[:, :1])], 1)


def fundamental_matrix(rotation: Array, translation: Array, focal_i: float, focal_j: float) -> Array:
    """F (3, 3) of centred pixels for the pose j_from_i: ``x_j^T F x_i = 0``."""
    x, y, z = translation
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.diag([1 / focal_j, 1 / focal_j, 1.0]) @ cross @ rotation @ np.diag([1 / focal_i, 1 / focal_i, 1.0])


def signed_sampson(fundamental: Array, x_i: Array, x_j: Array) -> Array:
    """First-order distance in pixels, with its sign, of each match to the epipolar geometry (Hartley and Zisserman,
    section 11.4.3)."""
    line_j = x_i @ fundamental[:, :2].T + fundamental[:, 2]
    line_i = x_j @ fundamental[:2] + fundamental[2]
    numerator = (line_j[:, :2] * x_j).sum(1) + line_j[:, 2]
    gradient = line_i[:, 0] ** 2 + line_i[:, 1] ** 2 + line_j[:, 0] ** 2 + line_j[:, 1] ** 2
    return numerator / np.sqrt(np.maximum(gradient, 1e-30))


def sampson(fundamental: Array, x_i: Array, x_j: Array) -> Array:
    """First-order distance in pixels of each match to the epipolar geometry."""
    return np.abs(signed_sampson(fundamental, x_i, x_j))


def triangulate_midpoints(
    rays_i: Array, rays_j: Array, rotation: Array, translation: Array
) -> tuple[Array, Array, Array]:
    """Points in camera i half way between the two rays, their depth in camera j and the angle between the rays."""
    b = rays_j @ rotation
    centre = -rotation.T @ translation
    aa, bb, ab = (rays_i * rays_i).sum(1), (b * b).sum(1), (rays_i * b).sum(1)
    ac, bc = rays_i @ centre, b @ centre
    determinant = np.maximum(aa * bb - ab * ab, 1e-12)
    depth_i, depth_j = (bb * ac - ab * bc) / determinant, (ab * ac - aa * bc) / determinant
    points = 0.5 * (rays_i * depth_i[:, None] + centre + b * depth_j[:, None])
    cosine = ab / np.sqrt(aa * bb)
    return points, depth_j, np.arccos(np.clip(cosine, -1, 1))


def rotation_residual(rays_i: Array, rays_j: Array, focal_j: float) -> Array:
    """Distance in pixels of view j that is left of each match after the robustly best rotation."""
    a = rays_i / np.linalg.norm(rays_i, axis=1, keepdims=True)
    b = rays_j / np.linalg.norm(rays_j, axis=1, keepdims=True)
    weights = np.ones(len(a))
    for _ in range(10):
        u, _, vt = np.linalg.svd((b * weights[:, None]).T @ a)
        rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        residual = focal_j * np.linalg.norm(a @ rotation.T - b, axis=1)
        weights = 1 / np.maximum(residual, 0.5)
    return residual


def significance(matches: int, inliers: int, chance: float, sample: int = 5) -> float:
    """-log10 of the expected number of geometries with this many inliers among random matches.

    ``chance`` is the probability that a wrong match is an inlier of a given geometry, ``sample`` the number of matches
    that determine one (Moisan and Stival, IJCV 2004).
    """

    def log_binomial(n: int, k: int) -> float:
        return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    log_number = (
        math.log(10.0 * max(matches - sample, 1)) + log_binomial(matches, inliers) + log_binomial(inliers, sample)
    )
    return -(log_number + (inliers - sample) * math.log(min(chance, 1.0))) / math.log(10)
