import pickle
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import tiny
from unposed.errors import UserError
from unposed.models.classic import Classic
from unposed.models.retrieval import KeypointRetriever, TokenRetriever, find_retriever, released_weights
from unposed.models.sift import Keypoints
from unposed.synth import procedural_textures, render_scenes
from unposed.views import View

WIDTH = tiny.DUST3R.enc_embed_dim
WORDS = 1024


def _view(name: str, image: torch.Tensor) -> View:
    height, width = image.shape[:2]
    return View(name, image, torch.eye(3, dtype=torch.float64), (width, height))


@pytest.fixture(scope="module")
def two_places() -> list[View]:
    """Four views each of two rooms, one room after the other."""
    rendered = render_scenes(4, 2, 4, 240, 320, textures=procedural_textures(), kinds=("room",))
    images = (rendered.images.flatten(0, 1).permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
    return [_view(f"{k}.png", image.contiguous()) for k, image in enumerate(images)]


def _noise(count: int, seed: int = 0) -> list[View]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)
    return [_view(f"{k}.png", torch.from_numpy(image)) for k, image in enumerate(pixels)]


def _write_released(folder: Path, words: int = WORDS, width: int = WIDTH, **changed: object) -> Path:
    """Retrieval files as they are released, for a tiny encoder; the path of the weights."""
    generator = torch.Generator().manual_seed(0)
    arguments = {"freeze_backbone": 1, "prewhiten": 0, "hdims": "", "postwhiten": None, "featweights": "l2norm"}
    arguments |= {"nfeat": 10, "nclusters": "1k", "imsize": 64, "pretrained": "x.pth", **changed}
    state = {
        "prewhiten.m": torch.randn(1, width, generator=generator).double(),
        "prewhiten.p": torch.randn(width, width, generator=generator).double(),
    }
    torch.save({"args": Namespace(**arguments), "model": state}, folder / "net_retrieval_trainingfree.pth")
    centroids = torch.randn(words, width, generator=generator).numpy()
    book = {"type": "Codebook", "params": {"size": words}, "state": {"centroids": centroids}}
    (folder / "net_retrieval_codebook.pkl").write_bytes(pickle.dumps(book, protocol=4))
    return folder / "net_retrieval_trainingfree.pth"


def test_photos_of_one_place_are_more_alike_than_those_of_two(two_places: list[View]) -> None:
    retriever = find_retriever(Classic())
    described = retriever.describe(two_places)
    scores = retriever.similarity(described, described)
    same = torch.arange(8)[:, None] // 4 == torch.arange(8) // 4
    others = same & ~torch.eye(8, dtype=torch.bool)
    assert scores.shape == (8, 8)
    assert scores[others].mean() > 3 * scores[~same].mean()
    nearest = (scores - torch.eye(8)).argmax(1)
    assert torch.equal(nearest // 4, torch.arange(8) // 4)


def test_features_of_the_model_give_the_descriptions_that_photos_give(two_places: list[View]) -> None:
    retriever = find_retriever(Classic())
    views = two_places[:2]
    from_features = retriever.describe(views, Classic().encode(views))
    from_photos = retriever.describe(views)
    scores = retriever.similarity(from_features, from_photos)
    torch.testing.assert_close(scores, retriever.similarity(from_photos, from_photos), rtol=0.02, atol=1e-3)


def test_descriptions_are_small_and_queries_need_not_be_in_the_database(two_places: list[View]) -> None:
    retriever = find_retriever(Classic())
    queries, database = retriever.describe(two_places[:3]), retriever.describe(two_places[3:])
    assert retriever.similarity(queries, database).shape == (3, 5)
    for described in queries:
        arrays = [a for side in (described.query, described.database) for a in (side.words, side.vectors)]
        assert sum(array.nbytes for array in arrays) < 50_000


def test_a_photo_without_keypoints_is_like_nothing() -> None:
    retriever = KeypointRetriever.shipped()
    flat = retriever.describe([_view("flat.png", torch.zeros(64, 64, 3, dtype=torch.uint8))])
    blank = retriever.describe(
        [_view("x", torch.zeros(64, 64, 3))], [Keypoints(torch.zeros(0, 2), torch.zeros(0, 128))]
    )
    assert float(retriever.similarity(flat, blank)) == 0


def test_released_weights_describe_by_the_encoder(tmp_path: Path) -> None:
    model, views = tiny.dust3r(), _noise(5)
    weights = _write_released(tmp_path)
    retriever = find_retriever(model, weights)
    assert isinstance(retriever, TokenRetriever)
    described = retriever.describe(views)
    assert [len(each.database.words) <= 10 for each in described] == [True] * 5
    again = retriever.describe(views, model.encode(views))
    scores = retriever.similarity(described, again)
    assert torch.equal(scores, retriever.similarity(again, described))
    assert torch.equal(scores.argmax(1), torch.arange(5))


def test_released_weights_are_found_beside_the_network(tmp_path: Path) -> None:
    assert released_weights(tmp_path / "net.pth") is None
    weights = _write_released(tmp_path)
    assert released_weights(tmp_path / "net.pth") == weights
    assert released_weights(str(tmp_path / "other.pth")) is None


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    retriever = find_retriever(tiny.dust3r(), _write_released(tmp_path, width=24))
    with pytest.raises(UserError, match="not for the encoder of dust3r"):
        retriever.describe(_noise(1))
    with pytest.raises(UserError, match="not for the encoder of classic"):
        TokenRetriever.from_files(Classic(), _write_released(tmp_path)).describe(_noise(1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"nclusters": "2k"}, "another size"),
        ({"nclusters": "many"}, "number of codewords"),
        ({"nfeat": "x"}, "impossible retrieval head"),
        ({"featweights": "learned"}, "only l2norm"),
        ({"hdims": "64_32"}, "lacks projector"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path: Path, changed: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_retriever(tiny.dust3r(), _write_released(tmp_path, **changed))


class _Hostile:
    def __reduce__(self) -> tuple:
        return print, ("executed",)


def test_a_missing_damaged_or_hostile_codebook_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = _write_released(tmp_path)
    codebook = tmp_path / "net_retrieval_codebook.pkl"
    contents = [
        (pickle.dumps(_Hostile()), "do not trust it"),
        (codebook.read_bytes()[:1000], "damaged"),
        (pickle.dumps({"state": {}}), "no codebook"),
        (pickle.dumps({"params": {"size": 2}, "state": {"centroids": [[1.0], [2.0]]}}), "no centroids"),
        (pickle.dumps({"params": {"size": 3}, "state": {"centroids": np.zeros((2, 2), np.float32)}}), "should hold 3"),
    ]
    for content, message in contents:
        codebook.write_bytes(content)
        with pytest.raises(UserError, match=message):
            find_retriever(tiny.dust3r(), weights)
    codebook.unlink()
    with pytest.raises(UserError, match="no readable codebook"):
        find_retriever(tiny.dust3r(), weights)
    assert "executed" not in capsys.readouterr().out
