import numpy as np
import pytest
import torch

import unposed
from tests.stereo_pair import stereo_pair
from unposed.errors import UserError
from unposed.io.flow_files import read_flow


def test_flow_between_the_photos_of_a_stereo_pair_is_minus_disparity(tmp_path):
    pair = stereo_pair()
    result = unposed.flow(pair.left.numpy(), pair.right.numpy())
    truth = torch.stack([-pair.disparity, torch.zeros_like(pair.disparity)], -1)
    error = (result.flow - truth).norm(dim=-1)
    sure = pair.seen & (result.confidence > 0.5)
    assert sure.sum() > 0.6 * pair.seen.sum()
    assert error[sure].mean() < 0.4
    assert error[pair.seen].median() < 0.25
    result.save(tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as saved:
        assert set(saved) == {"flow", "confidence"}
        assert np.array_equal(saved["flow"], result.flow.numpy())
        assert np.array_equal(saved["confidence"], result.confidence.numpy())
    for name, tolerance in (("f.flo", 0.0), ("f.png", 1 / 128)):
        result.save(tmp_path / name)
        torch.testing.assert_close(read_flow(tmp_path / name), result.flow, atol=tolerance, rtol=0)
    with pytest.raises(UserError, match=r"\.npz, \.flo or \.png"):
        result.save(tmp_path / "f.pfm")
    assert result.colours().shape == (240, 320, 3)


def test_photos_of_different_sizes_and_unknown_models():
    left, right = (x.numpy() for x in (stereo_pair().left, stereo_pair().right))
    with pytest.raises(UserError, match="one size"):
        unposed.flow(left, right[:, :-1])
    with pytest.raises(UserError, match="CroCo-Flow"):
        unposed.flow(left, right, model="raft")
