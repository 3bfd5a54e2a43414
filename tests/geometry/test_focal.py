import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.strategies import normal, seeds
from unposed.geometry.cameras import intrinsics_matrix, pointmap_from_depth
from unposed.geometry.focal import focal_from_pointmap


def _pointmap(seed: int, focal: float, centre: torch.Tensor) -> torch.Tensor:
    return pointmap_from_depth(normal(seed, 12, 16).abs() + 0.5, intrinsics_matrix(focal, centre))


@pytest.mark.parametrize("method", ["weiszfeld", "median"])
@given(seed=seeds, focal=st.floats(5, 100))
def test_focal_of_an_exact_pointmap(method: str, seed: int, focal: float) -> None:
    centre = torch.tensor([7.3, 5.6], dtype=torch.float64)
    found = focal_from_pointmap(_pointmap(seed, focal, centre), centre, method=method)
    assert float(found) == pytest.approx(focal, rel=1e-6)


@pytest.mark.parametrize("method", ["weiszfeld", "median"])
@given(seed=seeds)
def test_a_quarter_of_wrong_points_hardly_matters(method: str, seed: int) -> None:
    centre = torch.tensor([7.3, 5.6], dtype=torch.float64)
    points = _pointmap(seed, 20.0, centre)
    points[:3, :, :2] += 0.3 * normal(seed + 1, 3, 16, 2)
    assert float(focal_from_pointmap(points, centre, method=method)) == pytest.approx(20.0, rel=0.1)


@given(seeds)
def test_points_of_weight_zero_do_not_count(seed: int) -> None:
    centre = torch.tensor([7.3, 5.6], dtype=torch.float64)
    points, weights = _pointmap(seed, 20.0, centre), torch.ones(12, 16, dtype=torch.float64)
    points[:8] *= torch.tensor([3.0, 3.0, 1.0])
    weights[:8] = 0
    assert float(focal_from_pointmap(points, centre, weights)) == pytest.approx(20.0, rel=1e-6)


def test_points_at_the_origin_are_harmless() -> None:
    centre = torch.tensor([7.3, 5.6], dtype=torch.float64)
    points = _pointmap(0, 20.0, centre)
    points[4, 4] = 0
    assert float(focal_from_pointmap(points, centre)) == pytest.approx(20.0, rel=1e-3)


def test_bounds_are_multiples_of_sixty_degrees() -> None:
    centre = torch.tensor([7.5, 5.5], dtype=torch.float64)
    base = 16 / (2 * 3**-0.5)
    long, short = _pointmap(0, 1000.0, centre), _pointmap(0, 1.0, centre)
    assert float(focal_from_pointmap(long, centre, bounds=(0.5, 2.0))) == pytest.approx(2 * base)
    assert float(focal_from_pointmap(short, centre, bounds=(0.5, 2.0))) == pytest.approx(base / 2)
