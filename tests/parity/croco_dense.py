"""CroCo-Stereo and CroCo-Flow: networks, tiles, losses and metrics."""

from argparse import Namespace

import numpy as np
import torch

from tests.parity.harness import Case, runs
from unposed.evaluation.stereo_flow import DatasetMetrics, batch_metrics
from unposed.io.checkpoints import load_tensors, read_checkpoint, rename_tensors
from unposed.models.croco import KEYS, CrocoConfig, CrocoDense, StereoFlow
from unposed.models.tiling import Tiling, enlarge_to, predict_tiled, resize_displacements, tile_offsets
from unposed.train import croco_losses

_LOSSES = {
    "LaplacianLoss": croco_losses.laplacian,
    "LaplacianLossBounded": croco_losses.laplacian_bounded,
    "LaplacianLossBounded2": croco_losses.laplacian_log_bounded,
}


def _load(case: Case) -> StereoFlow:
    path = case.scratch / "model.pth"
    torch.save({"model": case.state_dict(), "args": Namespace(**case.params["args"]), "epoch": 3}, path)
    return StereoFlow.from_checkpoint(read_checkpoint(path))


@runs("croco", "binocular*")
def binocular(case: Case) -> None:
    case.check("out", _load(case).network(case.tensor("img1"), case.tensor("img2")))


@runs("croco", "monocular*")
def monocular(case: Case) -> None:
    names = ("img_size", "enc_embed_dim", "enc_depth", "enc_num_heads", "pos_embed", "mlp_ratio")
    config = CrocoConfig.from_keywords({name: case.config[name] for name in names})
    network = CrocoDense(config, case.config["num_channels"], binocular=False)
    load_tensors(network, rename_tensors(case.state_dict(), KEYS), case.name)
    case.check("out", network(case.tensor("img")))


@runs("croco", "tiled*")
def tiled(case: Case) -> None:
    model = _load(case)
    window = tuple(case.params["window_hw"])
    assert (model.window, model.confidence_mode, model.criterion) == (
        window,
        case.params["conf_mode"],
        case.params["criterion"],
    )
    for q, run in enumerate(case.params["cases"]):
        image1, image2, truth = (case.tensor(f"{name}_{q}") for name in ("img1", "img2", "gt"))
        prediction, confidence = predict_tiled(
            model.network, image1, image2, window, run["overlap"], model.confidence_mode
        )
        case.check(f"pred_{q}", prediction)
        case.check(f"conf_{q}", confidence)
        image1, image2 = enlarge_to(window, image1), enlarge_to(window, image2)
        tiling = Tiling.plan(tuple(image1.shape[-2:]), window, run["overlap"])
        case.check(f"offsets_y_{q}", tiling.rows)
        case.check(f"offsets_x_{q}", tiling.columns)
        with torch.no_grad():
            maps = model.network(tiling.crop(image1), tiling.crop(image2))
        truth = resize_displacements(truth, tiling.size)
        losses = [
            _LOSSES[model.criterion](tile[None, :-1], true[None], tile[None, -1:])
            for tile, true in zip(maps, tiling.crop(truth), strict=True)
        ]
        case.check(f"tiled_loss_{q}", torch.stack(losses).mean())


@runs("croco", "tile_offsets")
def offsets(case: Case) -> None:
    for run in case.params["cases"]:
        case.check(run["name"], tile_offsets(run["total"], run["window"], run["overlap"]))


@runs("croco", "stereoflow_losses")
def losses_and_metrics(case: Case) -> None:
    for task in case.params["tasks"]:
        truth, prediction, raw, twice = (case.tensor(f"{n}_{task}") for n in ("gt", "pred", "conf", "gt2x"))
        for loss in case.params["losses"]:
            arguments = {("max_norm" if key == "max_gtnorm" else key): value for key, value in loss["args"].items()}
            if loss["class"] == "L1Loss":
                value = croco_losses.l1(prediction, truth, **arguments)
            else:
                value = _LOSSES[loss["class"]](prediction, truth, raw, **arguments)
            case.check(f"{loss['name']}_{task}", value)
        names = case.params["batch_metrics"][task]
        case.check(f"batch_metrics_{task}", _values(batch_metrics(prediction, truth, names)))
        for name, reference in (("dataset_metrics", truth), ("dataset_metrics_2x", twice)):
            metrics = DatasetMetrics(case.params["dataset_metrics"][task])
            for predicted, true in zip(prediction, reference, strict=True):
                metrics.add(predicted[None], true[None])
            case.check(f"{name}_{task}", _values(metrics.result()))


def _values(metrics: dict[str, float]) -> np.ndarray:
    return np.array(list(metrics.values()), np.float32)
