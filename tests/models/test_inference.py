from tests.models import tiny
from unposed.models.inference import predict_pairs


def test_every_view_is_encoded_once_and_progress_is_told():
    network = tiny.dust3r()
    views = [tiny.view(name, 32, 48) for name in "abc"]
    seen, told = [], []
    encode = network.encode
    network.encode = lambda views: seen.extend(views) or encode(views)
    pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2)]
    found = [pair for pair, _ in predict_pairs(network, views, pairs, lambda *done: told.append(done))]
    assert sorted(found) == sorted(pairs)
    assert len(seen) == 3
    assert told == [(k, 5) for k in range(1, 6)]
