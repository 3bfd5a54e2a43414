"""MASt3R-SfM's image retrieval and the scene graphs that use it against the reference's numbers."""

import argparse

import numpy as np
import torch

from unposed.io.checkpoints import read_checkpoint
from unposed.models import asmk
from unposed.models.retrieval_head import RetrievalHead, learn_whitening

from .harness import Case, runs


@runs("mast3r-sfm", "asmk*")
def asmk_similarity(case: Case) -> None:
    params = case.params
    kernel = params["similarity_threshold"], params["alpha"]
    for c, sizes in enumerate(params["cases"]):
        centroids, images = case.tensor(f"centroids_{c}"), case.tensor(f"feat_{c}")
        for n in (params["db_assignment"], params["query_assignment"]):
            case.check(f"words{n}_{c}", asmk.nearest_words(images.flatten(0, 1), centroids, n))
        sides = {}
        for binary in (True, False):
            for n, side in ((params["db_assignment"], "database"), (params["query_assignment"], "query")):
                sides[side, binary] = [
                    asmk.aggregate(image, centroids, asmk.nearest_words(image, centroids, n), binary)
                    for image in images
                ]
        scores = asmk.similarity(sides["query", True], sides["database", True], *kernel)
        case.check(f"scores_{c}", scores)
        case.check(f"ranks_{c}", scores.argsort(dim=1, descending=True, stable=True))
        case.check(f"scores_nonbinary_{c}", asmk.similarity(sides["query", False], sides["database", False], *kernel))
        first = sides["database", True][0]
        case.check(f"img0_db_words_{c}", first.words)
        case.check(f"img0_db_bits_{c}", np.unpackbits(first.vectors, axis=1)[:, : sizes["bits_padded_to"]])
        case.check(f"img0_query_words_{c}", sides["query", True][0].words)
        case.check(f"norm_factor_{c}", torch.tensor([float(len(image.words)) for image in sides["database", True]]))


@runs("mast3r-sfm", "retrieval_features*")
def retrieval_features(case: Case) -> None:
    train = case.tensor("train").to(getattr(torch, case.params["whiten_dtype"]))
    for name, exponent in case.params["whiten_exponents"].items():
        mean, matrix = learn_whitening(train, exponent)
        case.check("white_mean", mean)
        case.check(name, matrix.abs() if "abs" in name else matrix @ matrix.T)
    for name, arguments in case.params["models"].items():
        head = _released_head(case, arguments)
        features, strength = head(case.tensor("feats"))
        case.check(f"{name}_feat", features)
        case.check(f"{name}_attn", strength)
        case.check(f"{name}_global", head.pooled(features, strength))
        for output, value in zip(("feat", "attn", "idx"), head.strongest(features, strength), strict=True):
            case.check(f"{name}_top_{output}", value)


def _released_head(case: Case, arguments: dict) -> RetrievalHead:
    """The head read from a file as the reference writes it."""
    if arguments["state"] == "manifest":
        state = case.state_dict()
    else:
        state = {"prewhiten.m": case.tensor("prewhiten_m"), "prewhiten.p": case.tensor("prewhiten_p")}
    hidden = "_".join(map(str, arguments["hdims"]))
    file = case.scratch / "x_retrieval_trainingfree.pth"
    torch.save(
        {
            "args": argparse.Namespace(**{**arguments, "hdims": hidden}),
            "model": {name: tensor.double() for name, tensor in state.items()},
        },
        file,
    )
    checkpoint = read_checkpoint(file)
    return RetrievalHead.from_state(checkpoint.extra["args"], checkpoint.tensors, file)
