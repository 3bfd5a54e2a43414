"""MoGe's solvers: focal and shift of a pointmap, and the optimal alignment."""

import torch

from tests.parity.harness import Case, runs
from unposed.geometry import robust_alignment
from unposed.geometry.focal_shift import recover_focal_shift, recover_shift, sampled
from unposed.geometry.truncated_l1 import fit_scale
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


_ALIGNMENTS = {
    "align_depth_scale": (robust_alignment.align_depth_scale, "depth"),
    "align_depth_affine": (robust_alignment.align_depth_affine, "depth"),
    "align_points_scale": (robust_alignment.align_points_scale, "points"),
    "align_points_scale_z_shift": (robust_alignment.align_points_scale_z_shift, "points"),
    "align_points_scale_xyz_shift": (robust_alignment.align_points_scale_xyz_shift, "points"),
    "align_points_z_shift": (robust_alignment.align_points_z_shift, "points"),
    "align_points_xyz_shift": (robust_alignment.align_points_xyz_shift, "points"),
}


@runs("moge", "align*")
def alignment(case: Case) -> None:
    for name, call in case.params.items():
        solver = name.split(".")[0]
        if solver == "align":
            fit = fit_scale(case.tensor("x"), case.tensor("y"), case.tensor("w"), call["trunc"])
            case.check(f"{name}.a", fit.scale)
            case.check(f"{name}.loss", fit.loss)
            case.check(f"{name}.index", fit.element)
            continue
        if solver == "align_affine_lstsq":
            weights = case.tensor("w") if call["weights"] else None
            found = robust_alignment.fit_depth_affine(case.tensor("depth_src"), case.tensor("depth_tgt"), weights)
            case.check(f"{name}.scale", found.scale)
            case.check(f"{name}.shift", found.shift)
            continue
        align, kind = _ALIGNMENTS[solver]
        source = case.tensor(f"{kind}_src").requires_grad_()
        found = align(source, case.tensor(f"{kind}_tgt"), case.tensor("w"), call["trunc"])
        if isinstance(found, torch.Tensor):
            case.check(name, found)
            continue
        case.check(f"{name}.scale", found.scale)
        case.check(f"{name}.shift", found.shift)
        if "grad_of" in call:
            factors = call["grad_of"]
            (factors["scale"] * found.scale.sum() + factors["shift_z"] * found.shift[:, 2].sum()).backward()
            case.check(f"{name}.grad_src", source.grad)
