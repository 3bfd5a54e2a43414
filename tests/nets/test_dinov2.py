import torch

from unposed.nets.dinov2 import DinoV2, DinoV2Config

TINY = DinoV2Config(16, 3, 2, image_size=56)


def network(config=TINY):
    torch.manual_seed(0)
    return DinoV2(config).eval()


def test_features_of_chosen_blocks_and_the_last_class_token():
    images = torch.rand(2, 3, 28, 42)
    found = network()(images, (0, 2))
    assert [layer.shape for layer in found.patches] == [(2, 6, 16)] * 2
    assert found.cls.shape == (2, 16)
    assert torch.equal(network()(images, (2,)).patches[0], found.patches[1])


def test_the_native_grid_uses_the_table_as_it_is():
    net = network()
    own, table = net._positions((4, 4), by_size=False)
    assert torch.equal(torch.cat([own, table], 1), net.pos_embed)
    assert net._positions((2, 8), by_size=False)[1].shape == (1, 16, 16)


@torch.no_grad()
def test_positions_are_sampled_with_the_trained_offset():
    net = network()
    trained, exported = (net._positions((7, 5), by_size=by_size)[1] for by_size in (False, True))
    assert trained.shape == exported.shape == (1, 35, 16)
    assert 1e-4 < float((trained - exported).abs().max()) < 0.05


def test_named_variants():
    assert DinoV2Config.named("dinov2_vitb14").width == 768
    registers = DinoV2Config.named("dinov2_vitl14_reg")
    assert (registers.registers, registers.antialias, registers.offset) == (4, True, 0.0)
    assert DinoV2Config.named("vit") is None
    with torch.device("meta"):
        giant = DinoV2(DinoV2Config.named("dinov2_vitg14"))
    assert giant.blocks[0].mlp.w12.weight.shape == (8192, 1536)
    assert sum(p.numel() for p in giant.parameters()) == 1_136_480_768 - 1536  # the paper's 1.1 B, less the mask token


def test_registers_are_seen_but_not_returned():
    config = DinoV2Config(16, 2, 2, image_size=56, registers=4, antialias=True, offset=0.0)
    net, images = network(config), torch.rand(1, 3, 28, 28)
    before = net(images, (1,)).patches[0]
    net.register_tokens.data += 1
    after = net(images, (1,)).patches[0]
    assert before.shape == (1, 4, 16)
    assert not torch.equal(before, after)
