"""MASt3R-SfM's image retrieval and the scene graphs that use it against the reference's numbers."""

import argparse
import pickle

import numpy as np
import torch

from unposed.align.graph import farthest_points, make_pairs, retrieval_pairs
from unposed.io.checkpoints import read_checkpoint
from unposed.io.codebooks import read_codebook
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


@runs("mast3r-sfm", "pairs_graphs*")
def pairs_graphs(case: Case) -> None:
    for run in case.params["graphs"]:
        for symmetrize in case.params["symmetrize"]:
            pairs = make_pairs(run["graph"], run["n"], symmetrize, run["prefilter"])
            _check_pairs(case, f"{run['name']}_sym{int(symmetrize)}", pairs)


@runs("mast3r-sfm", "pairs_retrieval*")
def pairs_retrieval(case: Case) -> None:
    for c, run in enumerate(case.params["cases"]):
        similarity = case.inputs[f"sim_{c}"]
        if run["Na"] > 0:
            _check_sampling(case, c, run, 1 - similarity)
        else:
            case.check(f"keyframes_{c}", np.zeros(0))
        if run["Na"] > 0 and _repeats(case.outputs[f"keyframes_{c}"]):
            case.excuse(f"pairs_{c}", _CHOSEN_TWICE)
            case.excuse(f"symmetrised_{c}", _CHOSEN_TWICE)
            continue
        pairs = retrieval_pairs(similarity, run["Na"], run["k"], run["start"])
        _check_pairs(case, f"pairs_{c}", pairs)
        _check_pairs(case, f"symmetrised_{c}", pairs + [(j, i) for i, j in pairs])


_CHOSEN_TWICE = "reference bug: a view is at no distance 0 from itself, so that it becomes a key view twice"


def _check_sampling(case: Case, c: int, run: dict, distance: np.ndarray) -> None:
    """Key views, how far apart they are, and the same sampling stopped by a distance."""
    stop = case.params["fps_dist_thresh"]
    by_count = farthest_points(distance, run["Na"], run["start"])
    by_distance = farthest_points(distance, len(distance), run["start"], stop)
    for repeated, name, value in (
        (f"keyframes_{c}", f"keyframes_{c}", by_count[0]),
        (f"keyframes_{c}", f"fps_dist_{c}", by_count[1]),
        (f"fps_thr{stop}_idx_{c}", f"fps_thr{stop}_idx_{c}", by_distance[0]),
    ):
        if _repeats(case.outputs[repeated]):
            case.excuse(name, _CHOSEN_TWICE)
        else:
            case.check(name, np.array(value))


def _repeats(views: np.ndarray) -> bool:
    return len(set(views.tolist())) < len(views)


def _check_pairs(case: Case, name: str, pairs: list[tuple[int, int]]) -> None:
    """Compare with the reference's sorted list; where it lists a pair twice, without the repetition."""
    expected = list(map(tuple, case.outputs[name].tolist()))
    symmetrised = len(pairs) > 0 and {(j, i) for i, j in pairs} == set(pairs)
    proper = {frozenset(pair) for pair in expected if pair[0] != pair[1]}
    if len(expected) == len(proper) * (2 if symmetrised else 1):
        case.check(name, np.array(sorted(pairs)).reshape(-1, 2))
        return
    case.excuse(name, "reference bug: a pair is listed again the other way round, or a view is paired with itself")
    assert {frozenset(pair) for pair in pairs} == proper
    assert len(pairs) == len(proper) * (2 if symmetrised else 1)


@runs("mast3r-sfm", "released")
def released(case: Case) -> None:
    for name, entry in case.params.items():
        manifest = entry["manifest"]
        if "state.centroids" in manifest:
            shape = [size or 7 for size in manifest["state.centroids"]]
            content = {
                "type": "Codebook",
                "params": {"size": shape[0]},
                "state": {"centroids": np.zeros(shape, np.float32)},
            }
            file = case.scratch / f"{name}.pkl"
            file.write_bytes(pickle.dumps(content))
            assert list(read_codebook(file).shape) == shape
        else:
            config = entry["config"]
            arguments = {**config, "hdims": "_".join(map(str, config["hdims"])), "nclusters": 7}
            state = {key: torch.zeros(size, dtype=getattr(torch, entry["dtype"])) for key, size in manifest.items()}
            file = case.scratch / f"{name}.pth"
            torch.save({"args": argparse.Namespace(**arguments), "model": state}, file)
            checkpoint = read_checkpoint(file)
            head = RetrievalHead.from_state(checkpoint.extra["args"], checkpoint.tensors, file)
            assert head.token_width == config["backbone_dim"]
            assert head.kept == config["nfeat"]
            assert {key: list(tensor.shape) for key, tensor in head.state_dict().items()} == manifest
