"""MASt3R's regression and matching losses against the reference's numbers."""

import torch

from tests.parity.harness import Case, runs
from unposed.geometry.transforms import invert_rigid
from unposed.train.losses import ConfidenceWeighted, PairOutput, PairTruth, split_views
from unposed.train.metric_losses import MetricRegression


@runs("mast3r", "losses_regression*")
def regression(case: Case) -> None:
    def views(name: str, kind: type = float) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = case.tensor(f"gt1_{name}"), case.tensor(f"gt2_{name}")
        return (first.bool(), second.bool()) if kind is bool else (first, second)

    pose = invert_rigid(case.tensor("gt1_camera_pose"))
    moved = PairTruth.from_world(views("pts3d"), views("valid_mask", bool), pose)
    metric = case.tensor("gt1_is_metric_scale").bool()
    truth = PairTruth(moved.points, moved.valid, metric, views("sky_mask", bool))
    stride = case.params["norm_stride"]
    for name, entry in case.params["variants"].items():
        x1 = case.tensor("X1").requires_grad_()
        output = PairOutput((x1, case.tensor("X2")), (case.tensor("c1"), case.tensor("c2")))
        variant = _variant(entry)
        loss = ConfidenceWeighted(variant, case.params["alpha"])(output, truth)
        case.check(f"conf_{name}", loss.total.detach())
        case.check(f"conf_{name}_gradX1_b0", torch.autograd.grad(loss.total, x1)[0][0])
        case.check(f"detail_{name}", torch.stack(list(loss.parts.values())).detach())
        if name in case.params["norm_variants"]:
            predicted, target = variant.normalised(output, truth)
            for kind, joint in (("pr", predicted), ("gt", target)):
                for k, points in enumerate(split_views(joint, truth), 1):
                    case.check(f"norm_{name}_{kind}{k}_s{stride}", points[:, ::stride, ::stride].detach())
    for entry in case.params["tests"]:
        loss = _variant(entry)(PairOutput((case.tensor("X1"), case.tensor("X2"))), truth)
        case.check(f"test_{entry['name']}_gtscale{int(entry['gt_scale'])}", loss.total)


def _variant(entry: dict) -> MetricRegression:
    by_metric = entry["norm_mode"].startswith("?")
    return MetricRegression(
        norm_mode=entry["norm_mode"].removeprefix("?"),
        gt_scale=entry["gt_scale"],
        shift_invariant=entry.get("shift_invariant", False),
        scale_invariant=entry.get("scale_invariant", False),
        max_metric_scale=entry.get("max_metric_scale") if by_metric else 0.0,
        log={False: None, True: "after", "before": "before"}[entry.get("loss_in_log", False)],
        sky_distance=entry["sky_loss_value"],
    )
