import numpy as np
import pytest
import torch

import unposed
from tests.stereo_pair import stereo_pair
from unposed.errors import UserError
from unposed.io.flow_files import read_disparity
from unposed.models.flow import DisparityPrediction
from unposed.tasks.stereo import depth_from_disparity


@pytest.fixture(scope="module")
def result():
    pair = stereo_pair()
    return unposed.stereo(pair.left.numpy(), pair.right.numpy(), focal=pair.focal, baseline=pair.baseline)


def test_disparity_and_depth_of_an_exact_pair(result):
    pair = stereo_pair()
    known = pair.seen & (result.disparity > 0)
    assert known.sum() > 0.8 * pair.seen.sum()
    assert ((result.disparity - pair.disparity).abs()[known] > 2).float().mean() < 0.03
    assert ((result.depth / pair.depth - 1).abs()[known] < 0.03).float().mean() > 0.9
    assert torch.equal(result.depth > 0, result.disparity > 0)
    assert result.model == "classic"


def test_saved_files_hold_the_result(result, tmp_path):
    result.save(tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as saved:
        assert set(saved) == {"disparity", "confidence", "depth"}
        for name in saved:
            assert np.array_equal(saved[name], getattr(result, name).numpy())
    result.save(tmp_path / "s.pfm")
    assert torch.equal(read_disparity(tmp_path / "s.pfm"), result.disparity)
    result.save(tmp_path / "s.PNG")
    torch.testing.assert_close(read_disparity(tmp_path / "s.PNG"), result.disparity, atol=1 / 512, rtol=0)
    with pytest.raises(UserError, match=r"\.npz, \.pfm or \.png"):
        result.save(tmp_path / "s.exr")


def test_principal_points_that_differ_shift_the_disparity():
    disparity = torch.tensor([[0.0, 10.0, 3.0]])
    torch.testing.assert_close(depth_from_disparity(disparity, 100.0, 0.5, 15.0), torch.tensor([[0, 2.0, 50 / 18]]))
    torch.testing.assert_close(depth_from_disparity(disparity, 100.0, 0.5, -5.0), torch.tensor([[0, 10.0, 0]]))


def test_any_model_of_the_protocol_is_taken_and_told_the_range():
    class Ramp:
        name = "ramp"
        largest = 0.0

        def estimate_disparity(self, left, right, largest):
            self.largest = largest
            return DisparityPrediction(torch.ones(left.shape[:2]), torch.ones(left.shape[:2]))

    pair, model = stereo_pair(), Ramp()
    result = unposed.stereo(pair.left.numpy(), pair.right.numpy(), model=model)
    assert (result.model, result.depth) == ("ramp", None)
    assert pair.disparity[pair.seen].quantile(0.99) < model.largest <= 160
    unposed.stereo(pair.left.numpy(), pair.right.numpy(), model=model, largest=33.0)
    assert model.largest == 33


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"focal": 100.0}, "both"),
        ({"focal": 0.0, "baseline": 1.0}, "focal length of 0"),
        ({"focal": 1.0, "baseline": float("nan")}, "baseline of nan"),
        ({"doffs": 3.0}, "doffs"),
        ({"largest": -1.0}, "largest disparity"),
        ({"model": "unknown.pth"}, "CroCo-Stereo"),
    ],
)
def test_options_that_cannot_be(options, word):
    pair = stereo_pair()
    with pytest.raises(UserError, match=word):
        unposed.stereo(pair.left.numpy(), pair.right.numpy(), **options)


def test_pairs_that_are_no_rectified_pair():
    left, right = (x.numpy() for x in (stereo_pair().left, stereo_pair().right))
    for pair, word in (
        ((left, right[:-2]), "320 x 240 and 320 x 238"),
        ((right, left), "swapped"),
        ((left, np.roll(right, 5, 0)), "5 rows apart"),
        ((left, left), "no disparity"),
    ):
        with pytest.raises(UserError, match=word):
            unposed.stereo(*pair)
