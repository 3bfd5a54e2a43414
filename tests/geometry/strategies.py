"""Hypothesis strategies: tensors of double precision, rotations and poses. Seeds keep the examples easy to shrink."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from unposed.geometry.rotations import matrix_from_axis_angle, nearest_rotation
from unposed.geometry.transforms import rigid

seeds = st.integers(0, 2**31 - 1)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def rotations(draw: st.DrawFn) -> Tensor:
    """Rotations of every angle, with those near 0 and near pi as likely as the rest."""
    axis = torch.nn.functional.normalize(normal(draw(seeds), 3), dim=0)
    angle = draw(st.one_of(st.floats(0, 1e-4), st.floats(0, torch.pi), st.floats(torch.pi - 1e-4, torch.pi)))
    return matrix_from_axis_angle(axis * angle)


@st.composite
def poses(draw: st.DrawFn) -> Tensor:
    return rigid(nearest_rotation(normal(draw(seeds), 3, 3)), 3 * normal(draw(seeds), 3))
