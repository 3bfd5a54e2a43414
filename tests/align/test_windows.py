import torch

from unposed.align.windows import choose_windows, fit_windows, overlapping_windows


def test_windows_cover_the_photo_and_stay_inside() -> None:
    size = (700, 1100)
    windows = fit_windows(overlapping_windows(size, 256), size)
    assert bool((windows[:, :2] >= 0).all())
    assert bool((windows[:, 2] <= 1100).all())
    assert bool((windows[:, 3] <= 700).all())
    seen = torch.zeros(size, dtype=torch.bool)
    for left, top, right, bottom in windows.tolist():
        seen[top:bottom, left:right] = True
    assert bool(seen.all())


def test_a_photo_as_small_as_a_window_is_one_window() -> None:
    assert overlapping_windows((192, 256), 256).tolist() == [[0, 0, 256, 192]]


def test_chosen_windows_show_the_same_part_of_both_photos() -> None:
    points = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([400.0, 300.0])
    shift = torch.tensor([200.0, 100.0])
    size_a, size_b = (300, 400), (480, 640)
    grids = [fit_windows(overlapping_windows(size, 192), size) for size in (size_a, size_b)]
    boxes_a, boxes_b = choose_windows(points, points + shift, grids[0], grids[1], size_a, size_b)
    assert len(boxes_a) > 2
    centres_a, centres_b = ((boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (boxes_a, boxes_b))
    assert float((centres_b - centres_a - shift).abs().max()) < 40


def test_no_matches_no_windows() -> None:
    windows = overlapping_windows((300, 400), 192)
    boxes_a, boxes_b = choose_windows(torch.zeros(0, 2), torch.zeros(0, 2), windows, windows, (300, 400), (300, 400))
    assert len(boxes_a) == len(boxes_b) == 0
