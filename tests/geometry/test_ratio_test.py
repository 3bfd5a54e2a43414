from itertools import pairwise

import pytest
import torch
from torch.nn.functional import normalize

from unposed.geometry.ratio_test import ratio_matches


def exhaustive(a: torch.Tensor, b: torch.Tensor, ratio: float) -> torch.Tensor:
    similarity = a.double() @ b.double().T
    best, index = similarity.topk(2, dim=1)
    distance = (2 - 2 * best).clamp(min=0).sqrt()
    rows = torch.arange(len(a))
    passes = (similarity.argmax(0)[index[:, 0]] == rows) & (distance[:, 0] < ratio * distance[:, 1])
    order = (distance[:, 0] / distance[:, 1])[passes].argsort()
    return torch.stack([rows[passes], index[passes, 0]], 1)[order]


def descriptors(count: int, channels: int, positive: bool, seed: int) -> torch.Tensor:
    values = torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))
    return normalize(values.abs() if positive else values, dim=1)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize(("n", "m", "channels"), [(1500, 1300, 128), (513, 2049, 64), (70, 50, 16)])
def test_as_an_exhaustive_search_finds_them(n: int, m: int, channels: int, positive: bool) -> None:
    a = descriptors(n, channels, positive, 0)
    noisy = a[torch.randperm(n, generator=torch.Generator().manual_seed(1))[: m // 2]]
    noisy = noisy + torch.linspace(0, 0.12, len(noisy))[:, None] * torch.randn(
        noisy.shape, generator=torch.Generator().manual_seed(3)
    )
    b = torch.cat([normalize(noisy, dim=1), descriptors(m - len(noisy), channels, positive, 2)])
    expected = exhaustive(a, b, 0.85)
    assert len(expected) > 0
    found = ratio_matches(a, b, 0.85)
    assert set(map(tuple, found.tolist())) == set(map(tuple, expected.tolist()))
    distance = [float((a[i] - b[j]).norm() / (a[i] - b).norm(dim=1).topk(2, largest=False)[0][1]) for i, j in found]
    assert max(x - y for x, y in pairwise(distance)) < 1e-4


def test_a_neighbour_that_prefers_another_is_no_match() -> None:
    a = normalize(torch.tensor([[1.0, 0.02, 0], [1, 0, 0], [0, 0, 1]]), dim=1)
    b = torch.eye(3)
    assert ratio_matches(a, b, 0.85).tolist() == [[1, 0], [2, 2]]


@pytest.mark.parametrize(("n", "m"), [(0, 5), (1, 5), (5, 1), (5, 0)])
def test_too_few_to_be_compared_match_nothing(n: int, m: int) -> None:
    assert ratio_matches(torch.eye(8)[:n], torch.eye(8)[:m], 0.85).shape == (0, 2)
