import cv2
import numpy as np
import pytest
import torch

from tests.stereo_pair import stereo_pair
from unposed.models.rectified import match_rows


def test_a_rectified_pair_has_matches_in_rows_and_a_range_that_holds_them():
    pair = stereo_pair()
    rows = match_rows(pair.left, pair.right)
    assert rows.enough
    assert rows.rectified
    assert rows.typical_offset < 0.5
    assert not rows.swapped
    inside = (pair.disparity[pair.seen] <= rows.largest_disparity).float().mean()
    assert inside > 0.99
    assert rows.largest_disparity <= 160
    assert match_rows(pair.right, pair.left).swapped


@pytest.mark.parametrize(("rows", "degrees"), [(3, 0.0), (0, 1.5)])
def test_shifted_and_rolled_photos_are_noticed(rows, degrees):
    pair = stereo_pair()
    matrix = cv2.getRotationMatrix2D((160, 120), degrees, 1)
    matrix[1, 2] += rows
    moved = cv2.warpAffine(pair.right.numpy(), matrix, (320, 240), borderMode=cv2.BORDER_REFLECT)
    found = match_rows(pair.left, torch.from_numpy(moved))
    assert found.enough
    assert not found.rectified


def test_lengths_are_pixels_of_large_photos_too(monkeypatch):
    pair = stereo_pair()
    small = match_rows(pair.left, pair.right)
    large = [torch.from_numpy(cv2.resize(x.numpy(), (960, 720))) for x in (pair.left, pair.right)]
    monkeypatch.setattr("unposed.models.rectified.LARGEST_SIDE", 320)
    found = match_rows(*large)
    assert found.same_row == pytest.approx(3 * small.same_row)
    assert float(found.disparity.median()) == pytest.approx(3 * float(small.disparity.median()), rel=0.15)


def test_photos_without_anything_in_common_say_nothing():
    flat = torch.full((240, 320, 3), 128, dtype=torch.uint8)
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8))
    for pair in ((flat, flat), (noise, stereo_pair().right)):
        rows = match_rows(*pair)
        assert not rows.enough
        assert rows.rectified
        assert rows.largest_disparity == 80


def test_a_pair_that_hardly_overlaps_is_not_taken_for_an_unrectified_one():
    """So near that a tenth of the left photo is in the right one: the best geometry may be a wrong one."""
    pair = stereo_pair(0)
    assert pair.seen.float().mean() < 0.15
    assert match_rows(pair.left, pair.right).rectified
