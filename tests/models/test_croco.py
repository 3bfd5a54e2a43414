import pytest
import torch

from unposed.errors import UserError
from unposed.io.checkpoints import Checkpoint
from unposed.models.croco import Croco, CrocoConfig, CrocoDense, StereoFlow, patchify, unpatchify

SMALL = {"enc_embed_dim": 16, "enc_depth": 4, "enc_num_heads": 2, "dec_embed_dim": 16, "dec_num_heads": 2}


def test_unpatchify_undoes_patchify():
    images = torch.rand(2, 3, 32, 48)
    patches = patchify(images)
    assert patches.shape == (2, 6, 768)
    assert torch.equal(patches[0, 1, 3:6], images[0, :, 0, 17])
    assert torch.equal(unpatchify(patches, (2, 3)), images)


def test_masks_hide_the_exact_share_and_the_hidden_pixels_do_not_matter():
    torch.manual_seed(0)
    network = Croco(CrocoConfig(img_size=64, mask_ratio=0.75, dec_depth=2, **SMALL)).eval()
    mask = network.random_mask(torch.rand(3, 16))
    assert mask.sum(1).tolist() == [12, 12, 12]
    images1, images2 = torch.rand(3, 3, 64, 64), torch.rand(3, 3, 64, 64)
    patches = patchify(images1)
    scrambled = unpatchify(torch.where(mask[..., None], torch.rand_like(patches), patches), (4, 4))
    with torch.no_grad():
        prediction = network(images1, images2, mask)
        torch.testing.assert_close(network(scrambled, images2, mask), prediction)
        assert not torch.allclose(network(images1, -images2, mask), prediction)


@pytest.mark.parametrize("embedding", ["cosine", "RoPE100"])
def test_other_sizes_than_in_training(embedding):
    network = CrocoDense(CrocoConfig(img_size=64, pos_embed=embedding, dec_depth=8, **SMALL), channels=2)
    assert network(torch.rand(1, 3, 32, 96), torch.rand(1, 3, 32, 96)).shape == (1, 2, 32, 96)


def test_containers_without_a_description_are_refused(tmp_path):
    with pytest.raises(UserError, match="no CroCo-Stereo"):
        StereoFlow.from_checkpoint(Checkpoint(tmp_path / "x.pth", {}, {"args": {"task": "depth"}}))
    arguments = {"task": "flow", "criterion": "L1Loss()", "tile_conf_mode": "conf_expbeta3", "crop": [64, 64]}
    for change, message in (
        ({}, "how it was trained"),
        ({"croco_args": 3}, "how it was trained"),
        ({"croco_args": {}, "crop": [64]}, "how it was trained"),
        ({"croco_args": {}, "crop": 64}, "how it was trained"),
        ({"croco_args": {}, "criterion": "open('x')"}, "constructor"),
        ({"croco_args": {"dec_depth": 5}}, "5 decoder blocks"),
    ):
        with pytest.raises(UserError, match=message):
            StereoFlow.from_checkpoint(Checkpoint(tmp_path / "x.pth", {}, {"args": arguments | change}))
    with pytest.raises(UserError, match="does not know"):
        CrocoConfig.from_keywords({"depth": 3})
    with pytest.raises(UserError, match="position embedding"):
        CrocoConfig.from_keywords({"pos_embed": "learned"})
    with pytest.raises(UserError, match="picture or patch"):
        CrocoConfig.from_keywords({"img_size": "big"})
    with pytest.raises(UserError, match="Impossible"):
        CrocoConfig.from_keywords({"enc_depth": 10**6})
