import torch

from tests.models import tiny
from unposed.models.inference import predict_pairs


def test_every_view_is_encoded_once():
    network = tiny.dust3r()
    views = [tiny.view(name, 32, 48) for name in "abc"]
    seen = []
    encode = network.encode
    network.encode = lambda views: seen.extend(views) or encode(views)
    pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2)]
    found = [pair for pair, _ in predict_pairs(network, views, pairs)]
    assert sorted(found) == sorted(pairs)
    assert len(seen) == 3


def test_views_without_a_pair_are_not_encoded_and_indices_stay_those_of_all_views():
    network = tiny.dust3r()
    views = [tiny.view(name, 32, 48) for name in "abcd"]
    seen = []
    encode = network.encode
    network.encode = lambda views: seen.extend(view.name for view in views) or encode(views)
    found = dict(predict_pairs(network, views, [(3, 1)]))
    assert seen == ["b", "d"]
    ((_, alone),) = predict_pairs(network, [views[3], views[1]], [(0, 1)])
    torch.testing.assert_close(found[3, 1].points_i, alone.points_i)


def test_no_pairs_no_predictions():
    assert list(predict_pairs(tiny.dust3r(), [tiny.view("a", 32, 48)], [])) == []
