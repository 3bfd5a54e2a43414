import torch

from unposed.io.sky import sky_mask


def test_blue_above_is_sky_and_a_small_blue_thing_below_is_not():
    image = torch.full((60, 80, 3), 40, dtype=torch.uint8)
    image[:20] = torch.tensor([120, 160, 230], dtype=torch.uint8)
    image[40:48, 10:18] = torch.tensor([120, 160, 230], dtype=torch.uint8)
    image[22, 30] = torch.tensor([120, 160, 230], dtype=torch.uint8)  # a speck
    expected = torch.zeros(60, 80, dtype=torch.bool)
    expected[:20] = True
    assert torch.equal(sky_mask(image), expected)


def test_bright_haze_is_sky_and_a_dark_picture_has_none():
    assert sky_mask(torch.full((30, 30, 3), 235, dtype=torch.uint8)).all()
    assert not sky_mask(torch.full((30, 30, 3), 60, dtype=torch.uint8)).any()
