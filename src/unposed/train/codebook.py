"""The codebook of the retriever on SIFT descriptors: whitening and k-means on photos and on procedural scenes.

    python -m unposed.train.codebook TEXTURES src/unposed/weights/retrieval.safetensors

makes the shipped file anew (two cores: a few minutes).
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor

from unposed.models import sift
from unposed.models.asmk import nearest_words
from unposed.models.retrieval import KeypointRetriever
from unposed.models.retrieval_head import learn_whitening
from unposed.synth import load_textures, render_scenes
from unposed.train.warps import load_photos

DIMENSIONS = 64
"""Of the whitened descriptors."""
WORDS = 8192
ROUNDS = 8
EXPONENT = 0.5
"""Of the whitening: half way between the descriptors as they are and equal variances."""
SCENES, VIEWS = 40, 2


def train_codebook(
    textures: Path, dimensions: int = DIMENSIONS, words: int = WORDS, scenes: int = SCENES, seed: int = 0
) -> dict[str, Float[Tensor, "..."]]:
    """``mean`` (1, 128), ``whitening`` (128, dimensions) and ``centroids`` (words, dimensions), in float16.

    Args:
        textures: folder with ``photo_*`` and ``pano_*`` images; those held out for validation are not used.
        dimensions: of the whitened descriptors.
        words: size of the codebook.
        scenes: number of rendered scenes, ``VIEWS`` pictures of each.
        seed: of the scenes and of the start of k-means.

    Raises:
        UserError: no photos in ``textures``.
    """
    pictures = _pictures(textures, scenes, seed)
    descriptors = torch.cat([sift.detect(each, KeypointRetriever.FEATURES).descriptors for each in pictures])
    mean, whitening = learn_whitening(descriptors, EXPONENT)
    mean, whitening = mean.float(), whitening[:, :dimensions].float()
    centroids = k_means((descriptors - mean) @ whitening, words, ROUNDS, seed)
    return {"mean": mean.half(), "whitening": whitening.half(), "centroids": centroids.half()}


def k_means(points: Float[Tensor, "n dim"], count: int, rounds: int, seed: int) -> Float[Tensor, "count dim"]:
    """Lloyd's algorithm from random points; a centre that loses all its points starts again at a random one."""
    generator = torch.Generator().manual_seed(seed)
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(rounds):
        owner = nearest_words(points, centres, 1)[:, 0]
        sizes = owner.bincount(minlength=len(centres))
        centres = torch.zeros_like(centres).index_add_(0, owner, points) / sizes.clamp(min=1)[:, None]
        lost = (sizes == 0).nonzero()[:, 0]
        centres[lost] = points[torch.randint(len(points), (len(lost),), generator=generator)]
    return centres


def _pictures(textures: Path, scenes: int, seed: int) -> Iterator[UInt8[Tensor, "height width 3"]]:
    for photo in load_photos(textures, validation=False):
        yield photo.permute(1, 2, 0).contiguous()
    images = load_textures(textures)
    for scene in range(scenes):
        rendered = render_scenes(seed + scene, 1, VIEWS, 480, 640, textures=images)
        for image in rendered.images[0]:
            yield (image.permute(1, 2, 0) * 255).round().to(torch.uint8)


def main(textures: str, out: str) -> None:
    """Train on a folder of textures and write the file."""
    tensors = {name: tensor.contiguous() for name, tensor in train_codebook(Path(textures)).items()}
    save_file(tensors, out, metadata={"system": "retrieval", "descriptors": "whitened RootSIFT"})


if __name__ == "__main__":
    main(*sys.argv[1:])
