from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.tasks.perfect import PerfectModel, rendered, write_photos
from unposed.align.graph import connected_components
from unposed.errors import UserError
from unposed.tasks import pairs as pairs_module
from unposed.tasks.pairs import COMPLETE_UP_TO, alike, choose_pairs, wants_similarity
from unposed.tasks.progress import Silent
from unposed.tasks.reconstruct import reconstruct
from unposed.views import View


def _around(photos: int, shuffle: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarity of photos around a thing, neighbours most alike; and the place of each photo on the circle."""
    place = torch.randperm(photos, generator=torch.Generator().manual_seed(0)) if shuffle else torch.arange(photos)
    apart = (place[:, None] - place).abs()
    apart = torch.minimum(apart, photos - apart)
    return torch.exp(-apart / 5), place


def test_few_photos_are_all_paired_and_one_with_itself() -> None:
    assert choose_pairs("auto", ["a"]) == [(0, 0)]
    names = [str(k) for k in range(COMPLETE_UP_TO)]
    assert len(choose_pairs("auto", names)) == COMPLETE_UP_TO * (COMPLETE_UP_TO - 1)
    assert not wants_similarity("auto", COMPLETE_UP_TO)
    assert wants_similarity("auto", COMPLETE_UP_TO + 1)
    assert wants_similarity("retrieval-4-4", 5)
    assert not wants_similarity("swin-3", 500)


def test_many_photos_are_paired_by_likeness_whatever_their_names() -> None:
    similarity, place = _around(60, shuffle=True)
    pairs = choose_pairs("auto", [str(k) for k in range(60)], similarity)
    apart = torch.tensor([int((place[i] - place[j]).abs()) for i, j in pairs])
    assert torch.minimum(apart, 60 - apart).max() <= 6
    assert {(j, i) for i, j in pairs} == set(pairs)
    assert len(pairs) <= 60 * 2 * 10
    assert connected_components(60, pairs) == [list(range(60))]


def test_groups_with_nothing_in_common_are_still_offered_a_connection() -> None:
    similarity = torch.block_diag(*[torch.full((20, 20), 0.3)] * 2)
    pairs = choose_pairs("auto", [str(k) for k in range(40)], similarity)
    assert connected_components(40, pairs) == [list(range(40))]
    assert sum(i // 20 != j // 20 for i, j in pairs) == 2


def test_frames_of_a_video_keep_their_neighbours_and_find_loops() -> None:
    similarity, _ = _around(80, shuffle=False)
    pairs = set(choose_pairs("auto", [str(k) for k in range(80)], similarity, in_sequence=True))
    assert all((k, k + step) in pairs for step in (1, 2, 4, 8) for k in range(80 - step))
    assert (0, 79) in pairs
    assert len(pairs) <= 80 * 2 * 7


def test_retrieval_graphs_have_names_too() -> None:
    similarity, _ = _around(12, shuffle=True)
    names = [str(k) for k in range(12)]
    assert connected_components(12, choose_pairs("retrieval-3-4", names, similarity)) == [list(range(12))]
    with pytest.raises(UserError, match="which photos are alike"):
        choose_pairs("retrieval-3-4", names)
    with pytest.raises(ValueError, match="similarity"):
        choose_pairs("auto", names * 3)


class _Counting(PerfectModel):
    """Knows how often it encoded each view."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.encoded: list[str] = []

    def encode(self, views: Sequence[View]) -> list:
        self.encoded += [view.name for view in views]
        return super().encode(views)


def test_a_large_collection_is_reconstructed_from_alike_pairs_encoding_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = rendered(6)
    names = write_photos(tmp_path / "photos", truth)
    monkeypatch.setattr(pairs_module, "COMPLETE_UP_TO", 4)
    monkeypatch.setattr(pairs_module, "NEIGHBOURS", 2)
    model = _Counting(truth)
    scene = reconstruct(tmp_path / "photos", model=model, bundle=False)
    assert sorted(model.encoded) == names
    assert len(model.decoded) < 30
    assert len(scene.cameras) == 6


def test_alike_gives_similarity_and_the_features_of_the_model(tmp_path: Path) -> None:
    truth = rendered(3)
    pixels = (truth.images[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
    views = [View(f"{k}.png", image, torch.eye(3, dtype=torch.float64), (128, 96)) for k, image in enumerate(pixels)]
    model = _Counting(truth)
    similarity, features = alike(model, views, model, Silent())
    assert similarity.shape == (3, 3)
    assert torch.equal(similarity.argmax(1), torch.arange(3))
    assert len(features) == len(model.encoded) == 3
