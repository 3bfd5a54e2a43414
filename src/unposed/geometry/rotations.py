"""Rotations: unit quaternions (wxyz), 3x3 matrices and axis-angle vectors, all with leading batch dimensions."""

import torch
from jaxtyping import Float
from torch import Tensor


def matrix_from_quaternion(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrix of a quaternion wxyz of any non-zero length."""
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def quaternion_from_matrix(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternion wxyz with w >= 0 of a rotation matrix; accurate for every angle (Bar-Itzhack's largest row)."""
    m = rotation
    trace = m.diagonal(dim1=-2, dim2=-1)
    t0, t1, t2 = trace.unbind(-1)
    candidates = torch.stack(  # four times the outer product q q^T, one row per component
        [
            torch.stack([1 + t0 + t1 + t2, m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0],
                         m[..., 1, 0] - m[..., 0, 1]], -1),
            torch.stack([m[..., 2, 1] - m[..., 1, 2], 1 + t0 - t1 - t2, m[..., 0, 1] + m[..., 1, 0],
                         m[..., 0, 2] + m[..., 2, 0]], -1),
            torch.stack([m[..., 0, 2] - m[..., 2, 0], m[..., 0, 1] + m[..., 1, 0], 1 - t0 + t1 - t2,
                         m[..., 1, 2] + m[..., 2, 1]], -1),
            torch.stack([m[..., 1, 0] - m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1],
                         1 - t0 - t1 + t2], -1),
        ],
        -2,
    )  # fmt: skip
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = candidates.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    quaternion = torch.nn.functional.normalize(row, dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def matrix_from_axis_angle(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rodrigues: the rotation by ``|axis_angle|`` radians about its direction; differentiable at zero."""
    half = axis_angle / 2
    norm2 = (half * half).sum(-1, keepdim=True)
    small = norm2 < 1e-8
    safe = torch.where(small, torch.ones_like(norm2), norm2).sqrt()
    sinc = torch.where(small, 1 - norm2 / 6, safe.sin() / safe)
    w = torch.where(small, 1 - norm2 / 2, safe.cos())
    return matrix_from_quaternion(torch.cat([w, sinc * half], -1))


def axis_angle_from_matrix(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Axis-angle vector (radians, length at most pi) of a rotation matrix."""
    quaternion = quaternion_from_matrix(rotation)
    w, vector = quaternion[..., :1], quaternion[..., 1:]
    sine = vector.norm(dim=-1, keepdim=True)
    scale = torch.where(sine < 1e-6, 2 / w.clamp(min=1e-6), 2 * torch.atan2(sine, w) / sine.clamp(min=1e-12))
    return scale * vector


def rotation_angle(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Angle of a rotation in radians, in [0, pi]; stable near both ends."""
    skew = torch.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        -1,
    )
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(skew.norm(dim=-1), trace - 1)


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation closest to a matrix in the Frobenius norm (orthogonal Procrustes, determinant +1)."""
    u, _, vt = torch.linalg.svd(matrix)
    sign = torch.ones_like(matrix[..., 0])
    sign[..., 2] = torch.linalg.det(u @ vt).sign()
    return u @ (sign[..., :, None] * vt)
