"""How far off a relative pose may be, from how well its matches pin it down: first-order error propagation."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unposed.geometry.epipolar import Array, fundamental_matrix, signed_sampson
from unposed.geometry.essential import NOISE_FLOOR, centred
from unposed.geometry.rotations import matrix_from_axis_angle

INDEPENDENT_MATCHES = 300
"""More matches than this do not make a pose surer: neighbours err together."""
_STEP = 1e-5


def pose_uncertainty(
    pixels_i: Float[Tensor, "n 2"],
    pixels_j: Float[Tensor, "n 2"],
    intrinsics_i: Float[Tensor, "3 3"],
    intrinsics_j: Float[Tensor, "3 3"],
    j_from_i: Float[Tensor, "4 4"],
    focal_spread: float = 0.0,
) -> tuple[float, float]:
    """Standard errors, in degrees, of the rotation and of the direction of the translation (at most 90).

    Covariance of the least-squares fit of the epipolar (Sampson) errors to the pose (Hartley and Zisserman, 5.2.3):
    few matches, matches in a corner, on a line or at great distance make it large. ``focal_spread`` is the standard
    deviation of the logarithm of the focal lengths, which the pose then shares its matches with.

    Args:
        pixels_i, pixels_j: the matches that obey the pose, in images about 640 long.
        intrinsics_i, intrinsics_j: K of the two images.
        j_from_i: the pose; the length of its translation does not matter.
        focal_spread: 0 for focal lengths that are known.
    """
    (x_i, focal_i), (x_j, focal_j) = centred(pixels_i, intrinsics_i), centred(pixels_j, intrinsics_j)
    rotation, translation = j_from_i[:3, :3].double(), j_from_i[:3, 3].double()
    if len(x_i) < 5 or float(translation.norm()) == 0:
        return 180.0, 90.0
    translation = translation / translation.norm()
    across = torch.linalg.svd(translation[None])[2][1:]  # two directions at right angles to the translation

    def residual(step: Array) -> Array:
        turned = (matrix_from_axis_angle(torch.from_numpy(step[:3])) @ rotation).numpy()
        moved = (translation + torch.from_numpy(step[3:5]) @ across).numpy()
        stretch_i, stretch_j = math.exp(step[5]), math.exp(step[6])
        return signed_sampson(fundamental_matrix(turned, moved, focal_i * stretch_i, focal_j * stretch_j), x_i, x_j)

    jacobian = np.stack([(residual(step) - residual(-step)) / (2 * _STEP) for step in _STEP * np.eye(7)], 1)
    noise = max(1.4826 * float(np.median(np.abs(residual(np.zeros(7))))), NOISE_FLOOR)
    share = min(1.0, INDEPENDENT_MATCHES / len(x_i))
    information = jacobian.T @ jacobian * share / noise**2
    information[:5, :5] += 1e-6 * np.eye(5)  # nothing is less certain than a thousand radians
    information[5:, 5:] += np.eye(2) / max(focal_spread, 1e-6) ** 2
    variance = np.linalg.inv(information).diagonal()
    turn, direction = math.sqrt(variance[:3].sum()), math.sqrt(variance[3:5].sum())
    return min(math.degrees(turn), 180.0), min(math.degrees(direction), 90.0)
