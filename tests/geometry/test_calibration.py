import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.geometry.strategies import normal, seeds
from unposed.geometry.calibration import fit_pinhole
from unposed.geometry.cameras import backproject, intrinsics_matrix, pixel_grid
from unposed.synth import render_scenes

CENTRE = torch.tensor([40.0, 22.0], dtype=torch.float64)


def seen(seed: int, focal: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of a 64 x 48 picture and points behind them, one to four units away."""
    pixels = pixel_grid(48, 64, dtype=torch.float64).reshape(-1, 2)
    depth = 1 + 3 * torch.rand(len(pixels), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return pixels, backproject(pixels, depth, intrinsics_matrix(focal, CENTRE))


@settings(max_examples=25)
@given(seed=seeds, focal=st.floats(10, 500))
def test_exact_points_give_both(seed: int, focal: float) -> None:
    found, centre = fit_pinhole(*seen(seed, focal))
    assert found == pytest.approx(focal, rel=1e-6)
    assert torch.allclose(centre, CENTRE, atol=1e-4)


@pytest.mark.parametrize("known", [True, False])
@settings(max_examples=25)
@given(seed=seeds, share=st.floats(0, 0.3))
def test_three_tenths_of_outliers_move_the_focal_by_less_than_a_thousandth(
    seed: int, share: float, known: bool
) -> None:
    pixels, points = seen(seed, 60.0)
    wrong = torch.rand(len(points), generator=torch.Generator().manual_seed(seed + 1)) < share
    points[wrong] = normal(seed + 2, int(wrong.sum()), 3) + torch.tensor([1.0, 0.0, 2.0])  # and all on one side
    found, centre = fit_pinhole(pixels, points, principal_point=CENTRE if known else None)
    assert found == pytest.approx(60.0, rel=1e-3)
    assert torch.allclose(centre, CENTRE, atol=0.1)


@settings(max_examples=25)
@given(seed=seeds)
def test_noise_and_outliers_together(seed: int) -> None:
    pixels, points = seen(seed, 60.0)
    points[:, :2] += 0.01 * normal(seed + 3, len(points), 2) * points[:, 2:]  # 0.6 pixels
    wrong = torch.rand(len(points), generator=torch.Generator().manual_seed(seed + 1)) < 0.3
    points[wrong] = normal(seed + 2, int(wrong.sum()), 3) + torch.tensor([1.0, 0.0, 2.0])
    found, centre = fit_pinhole(pixels, points)
    assert found == pytest.approx(60.0, rel=0.01)
    assert torch.allclose(centre, CENTRE, atol=0.5)


@pytest.mark.parametrize("kind", ["room", "tabletop", "street"])
def test_pointmaps_of_procedural_scenes(kind: str) -> None:
    truth = render_scenes(3, 1, 1, 96, 128, kinds=(kind,))
    depth, k = truth.depth[0, 0].double().flatten(), truth.intrinsics[0, 0].double()
    pixels = pixel_grid(96, 128, dtype=torch.float64).reshape(-1, 2)
    points = backproject(pixels, depth, k).float()
    found, centre = fit_pinhole(pixels, points)
    assert found == pytest.approx(float(k[0, 0]), rel=1e-4)
    assert torch.allclose(centre, k[:2, 2], atol=0.01)


def test_weights_and_points_behind_the_camera() -> None:
    pixels, points = seen(0, 60.0)
    weights = torch.ones(len(points))
    points[:1500] *= torch.tensor([2.0, 2.0, 1.0])
    weights[:1500] = 0
    points[1500:1600, 2] *= -1
    points[1600:1700] = torch.nan
    assert fit_pinhole(pixels, points, weights)[0] == pytest.approx(60.0, rel=1e-6)


def test_nothing_to_see_is_nan() -> None:
    found, centre = fit_pinhole(torch.zeros(2, 2), torch.ones(2, 3))
    assert found != found
    assert centre.isnan().all()
    assert fit_pinhole(torch.zeros(2, 2), torch.ones(2, 3), principal_point=CENTRE)[1].tolist() == CENTRE.tolist()
    on_one_ray, _ = fit_pinhole(torch.rand(9, 2), torch.ones(9, 3))
    assert on_one_ray != on_one_ray
