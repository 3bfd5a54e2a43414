import numpy as np
import pytest

from unposed.train.schedule import batch_order, mixture, resized_indices, warmup_cosine


def test_learning_rate_rises_linearly_and_falls_as_a_cosine():
    assert warmup_cosine(0, 2, 10, 1.0, 0.1) == 0
    assert warmup_cosine(1, 2, 10, 1.0, 0.1) == pytest.approx(0.5)
    assert warmup_cosine(2, 2, 10, 1.0, 0.1) == pytest.approx(1.0)
    assert warmup_cosine(6, 2, 10, 1.0, 0.1) == pytest.approx(0.55)
    assert warmup_cosine(10, 2, 10, 1.0, 0.1) == pytest.approx(0.1)
    assert warmup_cosine(11, 2, 10, 1.0, 0.1) == pytest.approx(0.1)


def test_ranks_share_an_epoch_without_repeats():
    parts = [batch_order(23, 4, 3, epoch=5, world_size=2, rank=rank) for rank in (0, 1)]
    samples = np.concatenate(parts)[:, 0]
    assert len(samples) == len(set(samples)) == 16
    for part in parts:
        assert all(len(set(part[k : k + 4, 1])) == 1 for k in range(0, len(part), 4))
    assert not np.array_equal(parts[0], batch_order(23, 4, 3, epoch=6, world_size=2))


def test_resizing_uses_every_sample_before_any_twice():
    assert len(set(resized_indices(10, 6, 0))) == 6
    counts = np.bincount(resized_indices(10, 25, 0))
    assert counts.min() == 2
    assert counts.max() == 3


def test_mixture_repeats_items_of_a_set():
    assert mixture([2, 1], [2, 1]).tolist() == [[0, 0], [0, 0], [0, 1], [0, 1], [1, 0]]
