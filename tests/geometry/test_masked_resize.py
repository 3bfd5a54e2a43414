import numpy as np
import pytest
import torch

from unposed.geometry.masked_resize import masked_nearest, take


@pytest.mark.parametrize("size", [(4, 4), (6, 9), (12, 18), (30, 30), (5, 7)])
def test_every_cell_takes_the_nearest_valid_pixel_of_its_window(size):
    height, width = 12, 18
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(0)) > 0.6
    found, pixels = masked_nearest(mask, size)
    for i in range(size[0]):
        for j in range(size[1]):
            best = None
            windows = []
            for k, length, cells in ((i, height, size[0]), (j, width, size[1])):
                centre, extent = (k + 0.5) * length / cells, max(1, length / cells)
                first = int(np.round(centre - extent / 2))
                windows.append([(p, p + 0.5 - centre) for p in range(first, first + int(np.ceil(extent)))])
            for row, dy in windows[0]:
                for column, dx in windows[1]:
                    inside = 0 <= row < height and 0 <= column < width
                    if inside and mask[row, column] and (best is None or dy**2 + dx**2 < best[0] - 1e-6):
                        best = (dy**2 + dx**2, row * width + column)
            assert bool(found[i, j]) == (best is not None)
            assert int(pixels[i, j]) == (best[1] if best else 0)


def test_batches_and_channels():
    mask = torch.rand(3, 10, 14, generator=torch.Generator().manual_seed(1)) > 0.5
    values = torch.rand(3, 10, 14, 2)
    found, pixels = masked_nearest(mask, (5, 7))
    chosen = take(values, pixels, channels=True)
    assert chosen.shape == (3, 5, 7, 2)
    assert torch.equal(take(values[..., 1], pixels), chosen[..., 1])
    assert take(mask, pixels)[found].all()
    for k in range(3):
        assert torch.equal(masked_nearest(mask[k], (5, 7))[1], pixels[k])
