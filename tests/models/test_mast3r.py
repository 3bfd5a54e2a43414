"""What MASt3R adds: metres, descriptors, files told apart from DUSt3R's. Its numbers are in the goldens."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from tests.models import tiny
from unposed.errors import UserError
from unposed.models.dust3r import Dust3r
from unposed.models.inference import predict_pairs
from unposed.models.mast3r import Mast3r, Mast3rConfig
from unposed.models.registry import load_model

TINY = Mast3rConfig(
    img_size=(64, 64),
    head_type="catconv",
    output_mode="pts3d+desc6",
    enc_embed_dim=32,
    enc_depth=1,
    enc_num_heads=2,
    dec_embed_dim=16,
    dec_depth=2,
    dec_num_heads=2,
)


def test_predictions_are_metric_and_have_unit_descriptors() -> None:
    torch.manual_seed(0)
    model = Mast3r(TINY).eval()
    views = [tiny.view("a", 32, 48), tiny.view("b", 48, 32)]
    (pair, prediction), *_ = predict_pairs(model, views, [(0, 1), (1, 0)])
    assert model.metric
    assert pair == (0, 1)
    assert prediction.descriptors_i is not None
    assert prediction.descriptors_i.shape == (32, 48, 6)
    assert prediction.descriptor_confidence_j is not None
    assert prediction.descriptor_confidence_j.shape == (48, 32)
    torch.testing.assert_close(prediction.descriptors_i.norm(dim=-1), torch.ones(32, 48))


def test_a_released_file_says_that_it_is_mast3r(tmp_path: Path) -> None:
    keywords = {"img_size": (64, 64), "head_type": "catconv", "output_mode": "pts3d+desc6", "dec_depth": 2}
    text = "AsymmetricMASt3R(" + ", ".join(f"{k}={v!r}" for k, v in keywords.items()) + ")"
    torch.save({"model": {"enc_norm.bias": torch.zeros(1024)}, "args": Namespace(model=text)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="lacks"):  # recognised: only the tensors are not there
        load_model(tmp_path / "a.pth")
    assert type(load_model(tiny.write_dust3r(tmp_path))) is Dust3r


@pytest.mark.parametrize(
    "wrong", [{"output_mode": "pts3d"}, {"head_type": "dpt"}, {"conf_mode": None}, {"desc_conf_mode": ("tanh", 0, 1)}]
)
def test_a_configuration_that_no_network_can_have_is_refused(wrong: dict) -> None:
    with pytest.raises(UserError):
        Mast3rConfig.from_keywords(wrong)
