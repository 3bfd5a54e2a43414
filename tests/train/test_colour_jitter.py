import colorsys

import numpy as np

from unposed.train.colour_jitter import ColourJitter

IMAGE = np.random.default_rng(0).integers(40, 200, (16, 20, 3)).astype(np.uint8)


def jittered(seed, image=IMAGE, **amounts):
    only = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    return ColourJitter(**(only | amounts))(image, np.random.default_rng(seed)).astype(float)


def test_without_amounts_nothing_changes():
    assert np.abs(jittered(0) - IMAGE).max() <= 4  # the way through HSV in bytes


def test_brightness_is_a_factor_of_everything():
    factors = [(jittered(seed, brightness=0.5) / IMAGE).mean() for seed in range(20)]
    assert 0.45 < min(factors) < 0.75
    assert 1.15 < max(factors) < 1.55


def test_contrast_and_saturation_keep_the_mean_grey():
    for seed in range(5):
        for amounts in ({"contrast": 0.5}, {"saturation": 0.5}):
            changed = jittered(seed, **amounts)
            grey = [(im @ [0.299, 0.587, 0.114]).mean() for im in (changed, IMAGE)]
            assert abs(grey[0] - grey[1]) < 4
    spread = [jittered(seed, contrast=0.5).std() / IMAGE.std() for seed in range(10)]
    assert min(spread) < 0.8 < 1.2 < max(spread)


def test_hue_turns_by_a_tenth_of_the_circle_at_most():
    red = np.full((2, 2, 3), (200, 40, 40), np.uint8)
    turns = []
    for seed in range(20):
        hue = colorsys.rgb_to_hsv(*(jittered(seed, red, hue=0.1)[0, 0] / 255))[0]
        turns.append((hue + 0.5) % 1 - 0.5)
    assert -0.11 < min(turns) < -0.05
    assert 0.05 < max(turns) < 0.11
