import pytest
import torch

from unposed.align.canonical import CanonicalSums, CanonicalView
from unposed.geometry.cameras import intrinsics_matrix, pixel_grid, pointmap_from_depth

SIZE = 32, 48
CENTRE = torch.tensor([23.5, 15.5])


def _depth() -> torch.Tensor:
    x, y = pixel_grid(*SIZE).unbind(-1)
    return 3 + 0.01 * x + 0.3 * torch.sin(0.2 * y)


def _maps(count: int, noise: float = 0.0) -> list[torch.Tensor]:
    exact = pointmap_from_depth(_depth(), intrinsics_matrix(50.0, CENTRE))
    generator = torch.Generator().manual_seed(0)
    return [exact * (1 + noise * torch.randn(*SIZE, 1, generator=generator)) for _ in range(count)]


def _canonical(maps: list[torch.Tensor], own_scales: bool = False, stride: int = 8) -> CanonicalView:
    sums = CanonicalSums(SIZE, stride, own_scales=own_scales)
    for one in maps:
        sums.add(one, torch.full(SIZE, 4.0))
    return sums.finish()


def test_exact_maps_give_focal_depth_and_ratios_back() -> None:
    view = _canonical(_maps(3))
    assert float(view.focal(CENTRE)) == pytest.approx(50, rel=1e-4)
    torch.testing.assert_close(view.points[..., 2], _depth())
    pixels = pixel_grid(*SIZE).reshape(-1, 2).long()
    index, ratio = view.anchors_of(pixels)
    torch.testing.assert_close(view.anchor_depth.flatten()[index] * ratio, _depth().flatten(), rtol=1e-4, atol=0)


def test_the_average_of_noisy_maps_is_better_than_each() -> None:
    maps = _maps(16, noise=0.02)
    view = _canonical(maps)
    error = (view.points[..., 2] - _depth()).abs().mean()
    assert error < (maps[0][..., 2] - _depth()).abs().mean() / 3


def test_maps_of_different_units_are_brought_to_the_first_ones() -> None:
    units = torch.tensor([1.0, 0.3, 2.5, 1.7])
    maps = [unit * one for unit, one in zip(units, _maps(4), strict=True)]
    maps[2][:12] *= 3  # a third of a map is wrong
    view = _canonical(maps, own_scales=True)
    torch.testing.assert_close(view.scales, 1 / units, rtol=1e-3, atol=0)
    torch.testing.assert_close(view.points[12:, :, 2], _depth()[12:], rtol=1e-3, atol=0)


def test_pixels_that_are_not_finite_have_no_say() -> None:
    maps = _maps(3)
    maps[1][4:9, 7] = float("nan")
    torch.testing.assert_close(_canonical(maps).points[..., 2], _depth())


def test_anchors_behind_the_camera_or_without_a_point_are_unusable() -> None:
    maps = _maps(2)
    for one in maps:
        one[4, 4] = float("nan")
        one[12, 20] *= -1
    view = _canonical(maps)
    usable = torch.ones(4, 6, dtype=torch.bool)
    usable[0, 0] = usable[1, 2] = False
    assert torch.equal(view.usable_anchors, usable)
    assert view.focal(CENTRE).isfinite()
    assert view.confidence[4, 4] == 0


def test_pixels_beyond_the_last_whole_block_belong_to_it() -> None:
    view = _canonical(_maps(1), stride=9)
    assert view.grid == (3, 5)
    index, ratio = view.anchors_of(torch.tensor([[47, 31], [45, 27]]))
    assert index.tolist() == [14, 14]
    torch.testing.assert_close(ratio * view.anchor_depth[2, 4], _depth()[[31, 27], [47, 45]], rtol=1e-4, atol=0)


def test_a_photo_smaller_than_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="no anchors"):
        CanonicalSums((6, 40))
