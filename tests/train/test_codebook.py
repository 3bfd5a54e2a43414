from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from unposed.models.retrieval import KeypointRetriever
from unposed.models.sift import detect
from unposed.train import codebook


def test_k_means_finds_groups_and_loses_no_centre() -> None:
    generator = torch.Generator().manual_seed(0)
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (middles[:, None] + 0.1 * torch.randn(3, 50, 2, generator=generator)).flatten(0, 1)
    best = min(float((codebook.k_means(points, 3, 10, seed).sort(0).values - middles.sort(0).values).abs().max())
               for seed in range(8))  # fmt: skip
    assert best < 0.1
    repeated = codebook.k_means(torch.ones(20, 2), 4, 3, 0)
    assert torch.equal(repeated, torch.ones(4, 2))


def test_a_codebook_is_trained_and_describes_photos(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3), np.uint8)
    for k, tile in enumerate(pixels):
        Image.fromarray(tile).resize((384, 384)).save(tmp_path / f"photo_{k}.jpg")
    tensors = codebook.train_codebook(tmp_path, dimensions=16, words=32, scenes=0)
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        "mean": (1, 128),
        "whitening": (128, 16),
        "centroids": (32, 16),
    }
    retriever = KeypointRetriever(*(tensors[name].float() for name in ("mean", "whitening", "centroids")))
    image = torch.from_numpy(np.array(Image.open(tmp_path / "photo_0.jpg")))
    described = retriever.describe([], [detect(image, 100), detect(image.flip(2).contiguous(), 100)])
    assert float(retriever.similarity(described[:1], described[:1])) > 0.2


def test_the_shipped_codebook_has_the_sizes_of_its_training() -> None:
    folder = Path(codebook.__file__).parents[1] / "weights"
    tensors = load_file(folder / "retrieval.safetensors")
    assert tensors["centroids"].shape == (codebook.WORDS, codebook.DIMENSIONS)
    assert tensors["whitening"].shape == (128, codebook.DIMENSIONS)
    assert all(tensor.dtype == torch.float16 and tensor.isfinite().all() for tensor in tensors.values())
