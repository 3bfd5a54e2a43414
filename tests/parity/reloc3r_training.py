"""Reloc3r: the loss, the numbers that benchmarks report, and the pictures that go in."""

import numpy as np
import torch
from PIL import Image

from tests.parity.dust3r_images import save
from tests.parity.harness import Case, runs
from unposed.evaluation.pose import direction_error, pose_auc, rotation_error
from unposed.evaluation.relative_pose import mean_accuracy, share_below
from unposed.geometry.transforms import invert_rigid
from unposed.io.photos import ImageRule, make_view
from unposed.train.crop import PosedImage, training_view
from unposed.train.reloc3r_losses import direction_angles, pose_loss, rotation_angles


@runs("reloc3r", "loss*")
def loss(case: Case) -> None:
    first, second = case.tensor("gt_cam2world_1"), case.tensor("gt_cam2world_2")
    predicted = [case.tensor(f"pred_pose{k}").requires_grad_() for k in (1, 2)]
    found = pose_loss(predicted[0], predicted[1], first, second)
    found.loss.backward()
    case.check("loss", found.loss)
    case.check("terr1_deg", found.direction1.rad2deg())
    case.check("rerr1_deg", found.rotation1.rad2deg())
    case.check("terr2_deg", found.direction2.rad2deg())
    case.check("rerr2_deg", found.rotation2.rad2deg())
    truth = invert_rigid(first) @ second
    case.check(
        "per_sample_pose2",
        torch.stack([angles(predicted[1], truth) for angles in (direction_angles, rotation_angles)], -1),
    )
    for k, pose in enumerate(predicted, start=1):
        gradient = pose.grad.clone()
        for item in case.params["skip_samples"].get(f"grad_pose{k}", []):  # on the clamp: rounding decides
            gradient[item] = torch.from_numpy(case.outputs[f"grad_pose{k}"][item])
        case.check(f"grad_pose{k}", gradient)


@runs("reloc3r", "preprocess*")
def preprocess(case: Case) -> None:
    table = []
    for width, height in case.inputs["sizes"].tolist():
        row = [width, height]
        for size in case.params["size_table"]["rules"]:
            left, top, right, bottom = ImageRule(size).plan(width, height).box
            row += [right - left, bottom - top]
        table.append(row)
    case.check("size_table", table)
    photo = save(case.inputs["image"], case.scratch / "picture.png")
    for name in case.outputs:
        if name != "size_table":
            step = case.params[name].get("stride", 1)
            pixels = make_view(photo, ImageRule(case.params[name]["size"])).image.permute(2, 0, 1).numpy() / 255
            case.check(name, ((pixels.astype(np.float32) - 0.5) / 0.5)[:, ::step, ::step])


@runs("reloc3r", "metrics*")
def metrics(case: Case) -> None:
    case.check("rot_err_deg", rotation_error(case.tensor("Ra").double(), case.tensor("Rb").double()))
    case.check("transl_err_deg", direction_error(case.tensor("ta").double(), case.tensor("tb").double()))
    turn, direction = case.inputs["rot_err"], case.inputs["transl_err"]
    case.check("auc", pose_auc(np.maximum(turn, direction), case.params["thresholds"]))
    case.check("maa", [mean_accuracy(turn, direction, limit) for limit in case.params["thresholds"]])
    limits = case.params["rra_rta_thresholds"]
    case.check("rra_rta", [[share_below(error, limit) for error in (turn, direction)] for limit in limits])


@runs("reloc3r", "dataset_crop*")
def dataset_crop(case: Case) -> None:
    for suffix in ("", "_portrait"):
        image, intrinsics = case.inputs[f"image{suffix}"], case.inputs[f"K{suffix}"]
        view = PosedImage(image, np.zeros(image.shape[:2], np.float32), intrinsics)
        rng = np.random.default_rng(case.params["rng_seed"])
        made = training_view(view, tuple(case.params["resolution"]), rng, enlarge=Image.Resampling.LANCZOS)
        case.check(f"img{suffix}", made.image)
        case.check(f"K_out{suffix}", made.intrinsics)
