"""Benchmark metrics against the numbers of published evaluation scripts."""

import math
from dataclasses import astuple

import numpy as np
import torch

from tests.parity.harness import Case, runs
from unposed.evaluation.depth import METRICS, DepthRule, depth_metrics
from unposed.evaluation.image_quality import psnr, ssim
from unposed.evaluation.localisation import localisation_errors, median_errors, recall_within
from unposed.evaluation.point_clouds import cloud_errors
from unposed.evaluation.relative_pose import mean_accuracy, pairwise_errors, share_below, translation_error
from unposed.evaluation.trajectory import trajectory_errors
from unposed.geometry.rigid_fit import fit_rigid
from unposed.geometry.transforms import fit_similarity


@runs("evaluation", "multiview_relative_pose*")
def relative_pose(case: Case) -> None:
    rotation, translation = pairwise_errors(case.tensor("pred_cam2world"), case.tensor("gt_cam2world"))
    case.check("rot_deg", _extended_arccos(rotation))
    case.check("transl_deg", translation)
    case.check("t_angles", translation_error(case.tensor("t_a"), case.tensor("t_b"), "pose-diffusion"))
    errors = case.inputs["pair_rot_deg"], case.inputs["pair_transl_deg"]
    thresholds = case.params["thresholds"]
    case.check("maa", np.array([mean_accuracy(*errors, t) for t in thresholds]))
    case.check("maa_torch_variant", np.array([mean_accuracy(*errors, t, "histc") for t in thresholds]))
    limits = case.params["rra_rta_thresholds"]
    case.check("rra_rta", np.array([[share_below(e, t) for e in errors] for t in limits]))


def _extended_arccos(degrees: torch.Tensor) -> torch.Tensor:
    """What the reference's arccos makes of an exact angle: beyond |cosine| 1 - 1e-4 it continues as a straight line."""
    bound = 1 - 1e-4
    cosine = torch.deg2rad(degrees).cos()
    line = math.acos(bound) - (cosine.abs() - bound) / math.sqrt(1 - bound**2)
    line = torch.where(cosine > 0, line, math.pi - line)
    return torch.where(cosine.abs() > bound, torch.rad2deg(line), degrees)


@runs("evaluation", "trajectory*")
def trajectory(case: Case) -> None:
    predicted, truth = case.tensor("pred").double(), case.tensor("gt").double()
    case.check("ate", trajectory_errors(predicted, truth, case.params["ate"]["alignment"]).absolute)
    rpe = case.params["rpe"]
    errors = trajectory_errors(predicted, truth, rpe["alignment"], rpe["delta"])
    case.check("rpe_trans", errors.relative_translation)
    case.check("rpe_rot_deg", errors.relative_rotation_deg)
    scale, rotation, translation = fit_similarity(predicted[:, :3, 3], truth[:, :3, 3])
    case.check("umeyama_scale", scale)
    case.check("umeyama_R", rotation)
    case.check("umeyama_t", translation)
    rigid = fit_rigid(predicted[:, :3, 3], truth[:, :3, 3])
    case.check("umeyama_R_noscale", rigid[:3, :3])
    case.check("umeyama_t_noscale", rigid[:3, 3])


@runs("evaluation", "depth*")
def depth(case: Case) -> None:
    assert tuple(case.config["metrics"]) == METRICS
    for name, options in case.params.items():
        names = {"align_with_scale": "scale", "align_with_lstsq": "least-squares", "align_with_lad2": "lad2"}
        alignment = next((value for key, value in names.items() if options[key]), "median")
        rule = DepthRule(
            alignment,
            max_depth=options["max_depth"],
            clip=options["post_clip_max"],
            in_disparity=options["disp_input"],
            steps=options["max_iters"],
            learning_rate=options["lr"],
        )
        mask = case.tensor("custom_mask").bool() if options["custom_mask"] else None
        found = depth_metrics(case.tensor(options["pred"]), case.tensor("gt"), rule, mask)
        case.check(name, np.array(list(found.values())))


@runs("evaluation", "visloc*")
def localisation(case: Case) -> None:
    errors = localisation_errors(case.tensor("pred"), case.tensor("gt"))
    case.check("errors", np.stack(errors, -1))
    case.check("medians", np.array(median_errors(*errors)))
    for name, limits in case.params.items():
        case.check(name, np.array(recall_within(*errors, limits)))


@runs("evaluation", "image_quality*")
def image_quality(case: Case) -> None:
    assert case.params["psnr"]["clip"] == [0.0, 1.0]
    assert case.params["ssim"] == {"clip": None, "win_size": 11, "gaussian_sigma": 1.5, "data_range": 1.0}
    case.check("psnr", psnr(case.tensor("pred"), case.tensor("gt")))
    case.check("ssim", ssim(case.tensor("pred"), case.tensor("gt")))


@runs("evaluation", "point_cloud*")
def point_cloud(case: Case) -> None:
    names = ("rec_points", "gt_points", "rec_normals", "gt_normals")
    predicted, reference, *normals = (case.inputs[name].astype(np.float64) for name in names)
    errors = cloud_errors(predicted, reference, case.params["threshold"], *normals)
    case.check("accuracy", np.array(astuple(errors.accuracy)))
    case.check("completion", np.array(astuple(errors.completion)))
    case.check("completion_ratio", errors.recall)
    case.check("chamfer_mean", errors.chamfer)
    case.check("nc", errors.normal_consistency)
    case.check("precision_recall_f", np.array([errors.precision, errors.recall, errors.f_score]))
