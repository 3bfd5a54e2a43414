import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.strategies import normal, seeds
from unposed.geometry.cameras import (
    backproject,
    intrinsics_matrix,
    map_pixels,
    pixel_grid,
    pointmap_from_depth,
    project,
)

focals = st.floats(50, 2000)


@given(seeds, focals)
def test_projection_undoes_backprojection(seed: int, focal: float) -> None:
    pixels, depth = 300 * normal(seed, 9, 2), normal(seed + 1, 9).abs() + 0.1
    k = intrinsics_matrix(focal, normal(seed + 2, 2) * 100)
    points = backproject(pixels, depth, k)
    torch.testing.assert_close(points[:, 2], depth)
    torch.testing.assert_close(project(points, k), pixels)


def test_pixel_zero_is_the_centre_of_the_top_left_pixel() -> None:
    grid = pixel_grid(2, 3)
    assert grid.shape == (2, 3, 2)
    assert grid[0, 0].tolist() == [0, 0]
    assert grid[1, 2].tolist() == [2, 1]


@given(seeds, focals)
def test_pointmap_projects_onto_its_own_pixels(seed: int, focal: float) -> None:
    depth = normal(seed, 2, 4, 5).abs() + 0.1
    k = intrinsics_matrix(torch.tensor([focal, 2 * focal], dtype=torch.float64), normal(seed + 1, 2, 2))
    pixels = project(pointmap_from_depth(depth, k).flatten(1, 2), k)
    expected = pixel_grid(4, 5, dtype=torch.float64).reshape(-1, 2).expand(2, -1, 2)
    torch.testing.assert_close(pixels, expected, atol=1e-8, rtol=0)


def test_points_on_the_camera_plane_project_to_finite_pixels() -> None:
    assert project(torch.tensor([[1.0, 1.0, 0.0]]), torch.eye(3)).isfinite().all()


@given(seeds)
def test_pixel_maps_compose_like_matrices(seed: int) -> None:
    maps = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    maps[:, :2] = normal(seed, 2, 2, 3)
    pixels = normal(seed + 1, 6, 2)
    torch.testing.assert_close(map_pixels(maps[0] @ maps[1], pixels), map_pixels(maps[0], map_pixels(maps[1], pixels)))
