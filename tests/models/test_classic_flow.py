import torch

from tests.stereo_pair import stereo_pair
from unposed.models.classic_flow import ClassicFlow, ClassicStereo
from unposed.synth import covisibility, optical_flow, procedural_textures
from unposed.synth.tour import render_tour


def test_disparity_of_an_exact_pair():
    pair = stereo_pair()
    found = ClassicStereo().estimate_disparity(pair.left, pair.right, 130)
    known = found.disparity > 0
    error = (found.disparity - pair.disparity).abs()
    assert known[pair.seen].float().mean() > 0.8
    assert (error[known & pair.seen] > 2).float().mean() < 0.03
    assert error[known & pair.seen].median() < 0.3
    hidden = ~pair.seen & (pair.depth > 0)
    assert known[hidden].float().mean() < 0.5 * known[pair.seen].float().mean()
    assert torch.equal(known, found.confidence > 0)
    assert found.confidence.max() <= 1


def test_columns_at_the_left_edge_are_looked_at():
    generator = torch.Generator().manual_seed(0)
    texture = torch.randint(0, 255, (60, 140, 1), generator=generator, dtype=torch.uint8).expand(-1, -1, 3)
    left, right = texture[:, :120].contiguous(), texture[:, 8:128].contiguous()
    found = ClassicStereo().estimate_disparity(left, right, 60)
    inner = found.disparity[:, 8:]  # the right photo does not show the first 8 columns
    assert (inner - 8).abs().median() < 0.1
    assert (inner[:, :12] > 0).float().mean() > 0.8
    assert (found.disparity[:, :6] > 0).float().mean() < 0.5


def test_large_photos_give_disparity_in_their_own_pixels(monkeypatch):
    pair = stereo_pair()
    monkeypatch.setattr("unposed.models.classic_flow.LARGEST_SIDE", 160)
    found = ClassicStereo().estimate_disparity(pair.left, pair.right, 130)
    known = (found.disparity > 0) & pair.seen
    assert found.disparity.shape == pair.disparity.shape
    assert (found.disparity - pair.disparity).abs()[known].median() < 0.8


def test_flow_of_an_exact_pair_and_its_confidence():
    views = render_tour(3, "tabletop", 2, 180, 240, procedural_textures(), step=3.0)
    pictures = (views.images[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).contiguous()
    results = dict(ClassicFlow().estimate_flow(list(pictures), [(0, 1), (1, 0)]))
    for (a, b), found in results.items():
        truth, seen = optical_flow(views, a, b)[0], covisibility(views, a, b)[0]
        error = (found.flow - truth).norm(dim=-1)
        assert error[seen].mean() < 0.1 * truth.norm(dim=-1)[seen].mean()
        assert error[seen].mean() < 0.5
        assert error[seen & (found.confidence > 0.8)].mean() < error[seen].mean()
        target = torch.stack(torch.meshgrid(torch.arange(180), torch.arange(240), indexing="ij"), -1).flip(-1) + truth
        outside = ((target < -3) | (target > torch.tensor([242.0, 182.0]))).any(-1)
        assert found.confidence[outside].mean() < 0.3
        assert found.confidence[seen].mean() > 0.8


def test_a_picture_does_not_move_against_itself():
    pair = stereo_pair()
    ((_, found),) = ClassicFlow().estimate_flow([pair.left], [(0, 0)])
    assert found.flow.abs().max() < 0.1
    assert found.confidence.min() > 0.8
