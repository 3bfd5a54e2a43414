import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unposed.models.asmk import Aggregated, InvertedIndex, aggregate, nearest_words, similarity


def _images(seed: int, images: int, features: int, dim: int, words: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centroids = torch.randn(words, dim, generator=generator)
    return torch.randn(images, features, dim, generator=generator), centroids


def _score_by_definition(query: Tensor, image: Tensor, centroids: Tensor, assigned: int, power: float) -> float:
    """ASMK* written out: dictionaries of sign vectors, one comparison a common word."""
    sides = []
    for features, count in ((query, assigned), (image, 1)):
        sums: dict[int, Tensor] = {}
        for feature in features:
            distance = (feature - centroids).norm(dim=1)
            for word in distance.argsort()[:count].tolist():
                sums[word] = sums.get(word, torch.zeros_like(feature)) + feature - centroids[word]
        sides.append({word: total > 0 for word, total in sums.items()})
    bits = 32 * -(-query.shape[1] // 32)
    total = 0.0
    for word in sides[0].keys() & sides[1].keys():
        alike = 1 - 2 * int((sides[0][word] != sides[1][word]).sum()) / bits
        total += max(alike, 0.0) ** power
    return total / (len(sides[0]) * len(sides[1])) ** 0.5


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 1000),
    dim=st.sampled_from([5, 32, 40, 64, 96]),
    assigned=st.integers(1, 4),
    power=st.integers(1, 3),
)
def test_scores_are_those_of_the_definition(seed: int, dim: int, assigned: int, power: int) -> None:
    images, centroids = _images(seed, 3, 7, dim, 6)
    queries = [aggregate(image, centroids, nearest_words(image, centroids, assigned)) for image in images]
    database = [aggregate(image, centroids, nearest_words(image, centroids, 1)) for image in images]
    scores = similarity(queries, database, power=power)
    expected = [[_score_by_definition(q, d, centroids, assigned, power) for d in images] for q in images]
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_an_image_is_most_like_itself_and_wholly_so_with_one_word_a_feature() -> None:
    images, centroids = _images(0, 5, 30, 64, 20)
    for binary in (True, False):
        bags = [aggregate(image, centroids, nearest_words(image, centroids, 1), binary) for image in images]
        scores = similarity(bags, bags)
        torch.testing.assert_close(scores.diagonal(), torch.ones(5), rtol=1e-5, atol=1e-5)
        assert (scores - 2 * torch.eye(5)).max() < 0.5
        assert scores.min() >= 0


def test_the_same_places_seen_again_are_found_among_others() -> None:
    images, centroids = _images(1, 40, 50, 64, 200)
    again = images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    queries = [aggregate(image, centroids, nearest_words(image, centroids, 5)) for image in again]
    database = [aggregate(image, centroids, nearest_words(image, centroids, 1)) for image in images]
    assert torch.equal(similarity(queries, database).argmax(1), torch.arange(40))


def test_images_without_features_are_like_nothing() -> None:
    images, centroids = _images(3, 2, 10, 64, 20)
    empty = aggregate(torch.zeros(0, 64), centroids, nearest_words(torch.zeros(0, 64), centroids, 5))
    full = aggregate(images[0], centroids, nearest_words(images[0], centroids, 1))
    assert similarity([empty, full], [full, empty]).tolist() == [[0, 0], [1, 0]]
    assert InvertedIndex([empty]).scores(full).tolist() == [0]
    assert similarity([], [full]).shape == (0, 1)


def test_a_threshold_leaves_out_what_is_hardly_alike() -> None:
    word = np.array([3], np.int32)
    bags = [Aggregated(word, np.array([[bits, 0, 0, 0]], np.uint8)) for bits in (0, 0b1111, 0b11111111)]
    scores = similarity(bags[:1], bags, threshold=0.6, power=1.0)
    torch.testing.assert_close(scores, torch.tensor([[1.0, 0.75, 0.0]]))
