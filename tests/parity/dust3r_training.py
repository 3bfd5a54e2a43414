"""DUSt3R's losses, training crops, sampler and learning rate against the reference's numbers."""

import numpy as np
import torch

from tests.parity.harness import Case, runs
from unposed.geometry.transforms import invert_rigid
from unposed.train.crop import PosedImage, training_view
from unposed.train.losses import (
    ConfidenceWeighted,
    Maps,
    PairLoss,
    PairOutput,
    PairTruth,
    Regression,
    WeightedSum,
    normalisation_factor,
    optimal_scaling,
)
from unposed.train.schedule import batch_order, mixture, resized_indices, warmup_cosine


def _maps(array: np.ndarray) -> Maps:
    first, second = torch.as_tensor(array)
    return first, second


def _loss(spec: dict) -> PairLoss:
    if "sum" in spec:
        return WeightedSum([(term["factor"], _loss(term["loss"])) for term in spec["sum"]])
    if spec["class"] == "ConfLoss":
        regression = _loss(spec["pixel_loss"])
        assert isinstance(regression, Regression)
        return ConfidenceWeighted(regression, spec["alpha"])
    return Regression(
        norm_mode=spec["norm_mode"],
        gt_scale=spec["gt_scale"],
        shift_invariant="Shift" in spec["class"],
        scale_invariant="Scale" in spec["class"],
    )


@runs("dust3r", "losses*")
def losses(case: Case) -> None:
    camera_1_from_world = invert_rigid(torch.as_tensor(case.inputs["camera_pose1"]))
    points_world, valid = _maps(case.inputs["gt_pts3d"]), _maps(case.inputs["valid"].astype(bool))
    for entry in case.params["losses"]:
        truth = PairTruth.from_world(points_world, valid, camera_1_from_world, entry["dist_clip"])
        leaves = {"pts": torch.tensor(case.inputs["pred_pts3d"]), "conf": torch.tensor(case.inputs["conf"])}
        for leaf in leaves.values():
            leaf.requires_grad_()
        output = PairOutput((leaves["pts"][0], leaves["pts"][1]), (leaves["conf"][0], leaves["conf"][1]))
        loss = _loss(entry["loss"])(output, truth)
        case.check(f"loss_{entry['name']}", loss.total.detach())
        case.check(f"parts_{entry['name']}", torch.stack(list(loss.parts.values())).detach())
        for name in entry["grads"]:
            (gradient,) = torch.autograd.grad(loss.total, leaves[name], retain_graph=True)
            case.check(f"grad_{name}_{entry['name']}", gradient)
    truth = PairTruth.from_world(points_world, valid, camera_1_from_world)
    predicted = _maps(case.inputs["pred_pts3d"])
    for entry in case.params["norm_factors"]:
        case.check(entry["name"], normalisation_factor(predicted, truth.valid, entry["mode"])[0])
    for entry in case.params["opt_scalings"]:
        case.check(entry["name"], optimal_scaling(predicted, truth.points, truth.valid, entry["mode"]))


@runs("dust3r", "dataset_crop*")
def dataset_crop(case: Case) -> None:
    stride = case.params["stride"]
    for q, entry in enumerate(case.params["cases"]):
        view = PosedImage(*(case.inputs[f"{name}_{q}"] for name in ("image", "depth", "K")))
        rng = np.random.default_rng(entry["rng_seed"])
        made = training_view(view, tuple(entry["resolution_wh"]), rng, entry["aug_crop"])
        case.check(f"K_out_{q}", made.intrinsics)
        case.check(f"size_out_{q}", np.array(made.size[::-1]))
        case.check(f"img_out_{q}", made.image[::stride, ::stride])
        case.check(f"depth_out_{q}", made.depth[::stride, ::stride])


@runs("dust3r", "sampling_and_schedule*")
def sampling_and_schedule(case: Case) -> None:
    resized = case.params["resized_map"]
    case.check("resized_map", resized_indices(resized["n_samples"], resized["size"], resized["epoch"]))
    for s in case.params["samplers"]:
        order = batch_order(s["n_samples"], s["batch_size"], s["pool_size"], s["epoch"], s["world_size"], s["rank"])
        case.check(s["name"], order)
    terms = case.params["cat_mul"]["terms"]
    case.check("cat_mul", mixture([t["n_samples"] for t in terms], [t["factor"] for t in terms])[:, 1])
    s = case.params["schedule"]
    rates = [
        warmup_cosine(float(t), s["warmup_epochs"], s["epochs"], s["lr"], s["min_lr"]) for t in case.inputs["epochs"]
    ]
    case.check("lr", np.array(rates))
