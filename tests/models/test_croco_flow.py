import pytest
import torch

from tests.models.tiny_croco import write_tiny_croco
from tests.stereo_pair import stereo_pair
from unposed.errors import UserError
from unposed.models.croco import IMAGE_MEAN, IMAGE_STD
from unposed.models.croco_flow import OVERLAP, CrocoFlow, CrocoStereo, expected_error
from unposed.models.flow_registry import load_flow_model, load_stereo_model
from unposed.models.tiling import predict_tiled


def _normalised(picture):
    return ((picture / 255 - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)).permute(2, 0, 1)[None]


def test_disparity_is_the_tiled_networks_and_what_is_not_positive_is_unknown(tmp_path):
    path = write_tiny_croco(tmp_path / "stereo.pth", "stereo", "LaplacianLossBounded2")
    model = load_stereo_model(path, "cpu")
    assert isinstance(model, CrocoStereo)
    assert model.name == "stereo"
    left, right = (x[:40, :80].contiguous() for x in (stereo_pair().left, stereo_pair().right))
    found = model.estimate_disparity(left, right, 10)
    tiled, raw = predict_tiled(
        model.model.network, _normalised(left), _normalised(right), (32, 64), OVERLAP, "conf_expsigmoid_15_3"
    )
    known = tiled[0, 0] > 0
    assert torch.equal(found.disparity, torch.where(known, tiled[0, 0], 0.0))
    expected = torch.where(known, 1 / (1 + expected_error(raw[0], "LaplacianLossBounded2")), 0.0)
    torch.testing.assert_close(found.confidence, expected)


def test_flow_of_small_pictures_is_at_their_size(tmp_path):
    path = write_tiny_croco(tmp_path / "flow.pth", "flow", "LaplacianLossBounded")
    model = load_flow_model(path, "cpu")
    assert isinstance(model, CrocoFlow)
    pictures = [x[:30, :50].contiguous() for x in (stereo_pair().left, stereo_pair().right)]
    results = list(model.estimate_flow(pictures, [(0, 1), (1, 0)]))
    assert [pair for pair, _ in results] == [(0, 1), (1, 0)]
    tiled, _ = predict_tiled(
        model.model.network,
        _normalised(pictures[0]),
        _normalised(pictures[1]),
        (32, 64),
        OVERLAP,
        "conf_expsigmoid_15_3",
    )
    forward = results[0][1]
    assert torch.equal(forward.flow, tiled[0].permute(1, 2, 0))
    assert forward.confidence.shape == (30, 50)
    assert ((forward.confidence >= 1 / 5) & (forward.confidence <= 1 / 1.25)).all()
    assert not torch.equal(forward.flow, results[1][1].flow)


def test_raw_confidence_means_an_error_in_pixels():
    raw = torch.tensor([-100.0, 0.0, 100.0])
    torch.testing.assert_close(expected_error(raw, "LaplacianLossBounded"), torch.tensor([0.25, 2.125, 4.0]))
    bounds = torch.tensor([-3.0, 0.0, 3.0]).exp()
    torch.testing.assert_close(expected_error(raw, "LaplacianLossBounded2"), bounds)
    torch.testing.assert_close(expected_error(raw[1:2] + 1, "LaplacianLoss"), torch.tensor([1.0]).exp())
    with pytest.raises(UserError, match="L1Loss"):
        expected_error(raw, "L1Loss")


def test_files_for_something_else_are_refused(tmp_path):
    stereo = write_tiny_croco(tmp_path / "stereo.pth", "stereo", "LaplacianLossBounded2")
    flow = write_tiny_croco(tmp_path / "flow.pth", "flow", "LaplacianLossBounded")
    with pytest.raises(UserError, match=r"for stereo; .* for flow"):
        load_flow_model(stereo, "cpu")
    with pytest.raises(UserError, match=r"for flow; .* for stereo"):
        load_stereo_model(flow, "cpu")
    with pytest.raises(UserError, match="CroCo-Flow"):
        load_flow_model("raft", "cpu")
