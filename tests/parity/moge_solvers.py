"""MoGe's solvers: focal and shift of a pointmap, and the optimal alignment."""

import torch

from tests.parity.harness import Case, runs
from unposed.geometry.focal_shift import recover_focal_shift, recover_shift, sampled
from unposed.geometry.view_plane import view_plane


@runs("moge", "focal_shift*")
def focal_shift(case: Case) -> None:
    for name, size in case.params.items():
        if name.startswith("uv_"):
            height, width = size["height"], size["width"]
            case.check(name, view_plane(height, width, width / height))
    for tag in [name.removesuffix(".points") for name in case.inputs if name.endswith(".points")]:
        points, valid = case.tensor(f"{tag}.points")[None], case.tensor(f"{tag}.valid")[None] > 0
        if not valid.any():
            found = recover_focal_shift(points, valid)
            case.check(f"{tag}.focal", found.focal)
            case.check(f"{tag}.shift", found.shift)
            continue
        for kind, mask in (("masked", valid), ("nomask", torch.ones_like(valid))):
            found = recover_focal_shift(points, mask)
            case.check(f"{tag}.{kind}.focal", found.focal)
            case.check(f"{tag}.{kind}.shift", found.shift)
            case.check(f"{tag}.{kind}.focal_converged", found.focal[0])
            case.check(f"{tag}.{kind}.shift_converged", found.shift[0])
            case.check(f"{tag}.{kind}.count", sampled(mask).sum())
            focal = case.params["fixed_focal"]
            height, width = points.shape[1:3]
            rays = view_plane(height, width, width / height)[None] / focal
            case.check(f"{tag}.{kind}.shift_at_focal_{focal:g}", recover_shift(points, rays, mask))
