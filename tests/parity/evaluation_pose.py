"""Pose errors and their AUC against the numbers of two published evaluation scripts."""

import numpy as np
import torch

from tests.parity.harness import Case, runs
from unposed.evaluation.pose import direction_error, pose_auc, rotation_error


@runs("evaluation", "pose_auc*")
def run(case: Case) -> None:
    auc = np.array(pose_auc(case.inputs["errors"], case.params["thresholds"]))
    case.check("auc_noposplat", auc)
    case.check("auc_reloc3r", auc)
    truth, predicted = case.tensor("gt_pose").double(), case.tensor("pred_pose").double()
    angle = direction_error(predicted[:, :3, 3], truth[:, :3, 3], folded=True)
    distance = (predicted[:, :3, 3] - truth[:, :3, 3]).norm(dim=-1)
    case.check(
        "pose_error_folded", torch.stack([angle, distance, rotation_error(predicted[:, :3, :3], truth[:, :3, :3])], -1)
    )
