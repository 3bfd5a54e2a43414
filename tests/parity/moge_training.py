"""MoGe's losses at given anchors."""

import torch

from tests.parity.harness import Case, runs
from unposed.train import moge_losses


@runs("moge", "losses*")
def losses(case: Case) -> None:
    for name, call in case.params.items():
        if name == "anchor":
            continue
        prediction, truth = case.tensor("pred_points").requires_grad_(), case.tensor("gt_points")
        options = {
            "align_resolution": call["align_resolution"],
            "beta": call["beta"],
            "truncation": call["trunc"],
            "sparsity_aware": call["sparsity_aware"],
        }
        prefix = name.split(".")[0]
        if prefix == "global":
            found = moge_losses.global_loss(prediction, truth, **options)
            case.check(f"{name}.scale", found.scale)
            case.check(f"{name}.delta", found.delta)
        else:
            anchors = torch.stack([case.tensor(f"{prefix}.anchor_{axis}") for axis in "ij"], -1).long()
            assert len(anchors) == call["num_patches"]
            scale = case.tensor("global_scale") if call["use_global_scale"] else None
            found = moge_losses.local_loss(
                prediction, truth, case.tensor("focal"), anchors, level=call["level"], global_scale=scale, **options
            )
        found.loss.backward()
        case.check(f"{name}.loss", found.loss)
        case.check(f"{name}.truncated_error", found.truncated_error)
        _check_gradient(case, f"{name}.grad", prediction.grad)
    points, mask, radius, rows, columns = (
        case.tensor(f"anchor.{name}") for name in ("points", "mask", "radius_3d", "di", "dj")
    )
    case.check("anchor.weight", moge_losses.anchor_weights(points, mask > 0, radius, rows.long(), columns.long()))
    for name, loss in (("normal", moge_losses.normal_loss), ("edge", moge_losses.edge_loss)):
        prediction = case.tensor("pred_points").requires_grad_()
        value = loss(prediction, case.tensor("gt_points"))
        value.backward()
        case.check(f"{name}.loss", value)
        case.check(f"{name}.grad", prediction.grad)
    score, finite, infinite = case.tensor("mask_prob"), case.tensor("mask_pos") > 0, case.tensor("mask_neg") > 0
    case.check("mask_l2", moge_losses.mask_l2_loss(score, finite, infinite))
    case.check("mask_bce", moge_losses.mask_bce_loss(score, finite, infinite))
    case.check("metric_scale", moge_losses.metric_scale_loss(case.tensor("scale_pred"), case.tensor("scale_gt")))
    case.check("normal_map", moge_losses.normal_map_loss(case.tensor("pred_normal"), case.tensor("gt_normal")))


def _check_gradient(case: Case, name: str, gradient: torch.Tensor) -> None:
    """Two gradients that are zero have no cosine; they are the same."""
    if not case.outputs[name].any():
        case.tolerance[name] = {"rtol": 0.0, "atol": 0.0}
    case.check(name, gradient)
