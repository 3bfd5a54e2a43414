import torch

from unposed.align.subpixel import refine_on_pointmap
from unposed.geometry.cameras import intrinsics_matrix, pixel_grid, pointmap_from_depth
from unposed.views import Matches, PairPrediction

K = intrinsics_matrix(30.0, torch.tensor([15.5, 11.5]))


def _slanted(shift: float) -> torch.Tensor:
    """Pointmap (24, 32) of a slanted plane; ``shift`` moves the pixels along x."""
    grid = pixel_grid(24, 32) + torch.tensor([shift, 0.0])
    rays = torch.cat([(grid - K[:2, 2]) / 30, torch.ones(24, 32, 1)], -1)
    return rays * (3 / (1 + 0.3 * rays[..., :1]))


def _prediction(points_j: torch.Tensor, points_i: torch.Tensor | None = None) -> PairPrediction:
    ones = torch.ones(24, 32)
    return PairPrediction(_slanted(0.0) if points_i is None else points_i, points_j, ones, ones)


def _same_pixels() -> Matches:
    pixels = torch.tensor([[10.0, 10.0], [0.0, 0.0], [31.0, 23.0], [5.0, 20.0]])
    return Matches(pixels, pixels, torch.ones(4))


def test_the_place_between_pixels_is_found() -> None:
    refined = refine_on_pointmap(_same_pixels(), _prediction(_slanted(0.4)))
    moved = refined.points_b - refined.points_a
    torch.testing.assert_close(moved, torch.tensor([[-0.4, 0.0]]).expand(4, 2), atol=0.01, rtol=0)


def test_the_surface_beside_a_jump_is_followed() -> None:
    behind = _slanted(0.4)
    behind[:, 11:] *= 2
    refined = refine_on_pointmap(_same_pixels(), _prediction(behind))
    torch.testing.assert_close(refined.points_b[0], torch.tensor([9.6, 10.0]), atol=0.01, rtol=0)


def test_what_is_far_or_has_no_surface_stays() -> None:
    matches = _same_pixels()
    assert torch.equal(refine_on_pointmap(matches, _prediction(_slanted(3.0))).points_b, matches.points_b)
    assert torch.equal(refine_on_pointmap(matches, _prediction(torch.zeros(24, 32, 3))).points_b, matches.points_b)
    nothing = Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
    assert len(refine_on_pointmap(nothing, _prediction(_slanted(0.0))).points_b) == 0
    flat = pointmap_from_depth(torch.full((24, 32), 2.0), K)
    assert torch.allclose(refine_on_pointmap(matches, _prediction(flat, flat)).points_b, matches.points_b)
