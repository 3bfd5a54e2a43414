"""Rotations from what a network regresses: nine or six free numbers, with gradients that stay finite."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_LEAST_GAP = 1e-6
"""Sums of singular values below this count as this in the gradient: there the rotation is not unique."""


class _Projection(torch.autograd.Function):
    """The nearest rotation R of M, with the derivative of the polar decomposition M = R P in closed form.

    That of the singular value decomposition has differences of singular values in its denominators, which vanish
    where M is already a rotation; the one here has their sums.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        u, singular, vt = torch.linalg.svd(matrix)
        sign = torch.ones_like(singular)
        sign[..., 2] = torch.linalg.det(u @ vt).sign()
        rotation = u @ (sign[..., :, None] * vt)
        ctx.save_for_backward(rotation, vt, singular * sign)
        return rotation

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        rotation, vt, stretch = ctx.saved_tensors
        turn = vt @ rotation.mT @ gradient @ vt.mT
        gap = (stretch[..., :, None] + stretch[..., None, :]).clamp(min=_LEAST_GAP)
        return rotation @ vt.mT @ ((turn - turn.mT) / gap) @ vt


def rotation_from_9d(numbers: Float[Tensor, "*batch 9"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation nearest to a matrix (row-major) whose rows are brought to length 1 first; computed in float64.

    Differentiable everywhere but for rows of zeros (Reloc3r, section 3.2).
    """
    rows = F.normalize(numbers.unflatten(-1, (3, 3)).double(), dim=-1, eps=1e-12)
    return _Projection.apply(rows).to(numbers.dtype)


def rotation_from_6d(numbers: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation whose first two rows are two vectors made orthonormal in order (Zhou et al., CVPR 2019)."""
    a, b = numbers.unflatten(-1, (2, 3)).unbind(-2)
    first = F.normalize(a, dim=-1)
    second = F.normalize(b - (first * b).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -2)
