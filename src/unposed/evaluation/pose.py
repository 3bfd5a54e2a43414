"""Relative pose errors and the area under their accuracy curve, as benchmarks report them.

The maths is in ``unposed.geometry.pose_errors``, where training can reach it too.
"""

from unposed.geometry.pose_errors import direction_error, pose_auc, pose_error, rotation_error

__all__ = ["direction_error", "pose_auc", "pose_error", "rotation_error"]
