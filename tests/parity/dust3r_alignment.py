"""DUSt3R's geometry, scene graphs and global alignment against the reference's numbers."""

import numpy as np
import torch
from torch import Tensor

from unposed.align.clean import clean_pointcloud
from unposed.align.graph import make_pairs
from unposed.align.objective import (
    Objective,
    PairData,
    Parameters,
    Recipe,
    minimise_with_adam,
)
from unposed.align.sampling import Side
from unposed.align.spanning_tree import parameters_from_known_cameras, parameters_from_tree, start_from_tree
from unposed.align.two_view import solve_two_views
from unposed.geometry.cameras import backproject, intrinsics_matrix, pixel_grid, pointmap_from_depth, project
from unposed.geometry.focal import focal_from_pointmap
from unposed.geometry.localisation_errors import median_errors, recall_within
from unposed.geometry.neighbours import mutual_neighbours, nearest_neighbours
from unposed.geometry.pnp import solve_pnp, solve_pnp_unknown_focal, undistort_pixels
from unposed.geometry.rotations import rotation_angle
from unposed.geometry.similarity import fit_camera_similarity
from unposed.geometry.transforms import fit_similarity, rigid, transform_points

from .harness import Case, runs


@runs("dust3r", "geometry*")
def geometry(case: Case) -> None:
    depth, focal, pp = case.tensor("depth"), case.tensor("focal"), case.tensor("pp")
    height, width = depth.shape[1:]
    k = torch.diag_embed(torch.cat([focal.permute(0, 2, 3, 1), torch.ones_like(depth)[..., None]], -1))
    k[..., :2, 2] = pp[:, None, None]
    pointmap = backproject(pixel_grid(height, width)[None, :, :, None], depth[..., None], k)[..., 0, :]
    case.check("pointmap", pointmap)
    case.check("moved", transform_points(case.tensor("trf"), pointmap))
    k[..., 0, 0] = k[..., 1, 1] = focal[:, 0]
    k[..., :2, 2] = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    default = backproject(pixel_grid(height, width)[None, :, :, None], depth[..., None], k)[..., 0, :]
    case.check("pointmap_default_pp", default)
    points = case.tensor("pts2d")
    homography = rigid(case.tensor("hom"), torch.zeros(3))
    lifted = transform_points(homography, torch.cat([points, torch.ones(len(points), 1)], 1))
    case.check("hom_pts", project(lifted, torch.eye(3)))


@runs("dust3r", "focal*")
def focal(case: Case) -> None:
    for run in case.params["runs"]:
        bounds = float(run["min_focal"]), float(run["max_focal"])
        case.check(run["name"], focal_from_pointmap(case.tensor("pts3d"), case.tensor("pp"), None, run["mode"], bounds))


@runs("dust3r", "reciprocal_nn*")
def reciprocal_nn(case: Case) -> None:
    first, second = case.tensor("P1"), case.tensor("P2")
    index_1, index_2 = mutual_neighbours(first, second)
    mask = torch.zeros(len(second), dtype=torch.bool)
    mask[index_2] = True
    nearest = nearest_neighbours(second, first)
    assert torch.equal(nearest[index_2], index_1)
    case.check("reciprocal_in_P2", mask.to(torch.uint8))
    case.check("nn2_in_P1", nearest)
    case.check("count", torch.tensor(len(index_1)))


@runs("dust3r", "pairs*")
def pairs(case: Case) -> None:
    for run in case.params["graphs"]:
        ours = torch.tensor(make_pairs(run["graph"], run["n_images"], run["symmetrize"], run["prefilter"]))
        expected = torch.as_tensor(case.outputs[run["name"]])
        proper = expected[expected[:, 0] != expected[:, 1]]
        if len(proper) < len(expected):
            case.excuse(run["name"], "reference bug: windows longer than the sequence pair a photo with itself")
            assert sorted(ours.tolist()) == sorted(proper.tolist())
        elif run["ordered"]:
            case.check(run["name"], ours)
        else:
            rows = sorted(map(tuple, ours.tolist()))
            order = {pair: row for row, pair in enumerate(rows)}
            assert len(order) == len(rows)
            case.check(run["name"], torch.tensor([rows[order[tuple(pair)]] for pair in expected.tolist()]))
            assert len(rows) == len(expected)


@runs("dust3r", "solvers*")
def solvers(case: Case) -> None:
    scale, rotation, translation = fit_similarity(case.tensor("A"), case.tensor("B"), case.tensor("w"))
    case.check("s", scale)
    case.check("R", rotation)
    case.check("T", translation)
    scale, rotation, translation = fit_camera_similarity(case.tensor("src_poses"), case.tensor("dst_poses"))
    case.check("pose_s", scale)
    case.check("pose_R", rotation)
    case.check("pose_T", translation)
    points, mask = case.tensor("points"), case.tensor("mask").bool()
    height, width = mask.shape
    pixels, centre = pixel_grid(height, width)[mask], torch.tensor([width / 2, height / 2])
    k = intrinsics_matrix(float(case.inputs["true_focal"]), centre)
    error = case.config["reprojection_error"]
    known = solve_pnp(pixels, points[mask], k, error, case.params["niter_PnP"], "opencv")
    unknown = solve_pnp_unknown_focal(pixels, points[mask], centre, (height, width), error)
    assert known is not None
    assert unknown is not None
    case.check("pnp_pose", known.world_from_camera)
    case.excuse(
        "pnp_focal_unknown", "reference bug: of focals that tie in inliers the smallest wins, however bad its fit"
    )
    case.excuse("pnp_pose_unknown", "reference bug: the pose that goes with the wrong focal")
    assert abs(unknown.intrinsics[0, 0] / float(case.inputs["true_focal"]) - 1) < 0.15


def _pair_data(case: Case) -> PairData:
    sizes = [(height, width) for height, width in case.params["shapes_hw"]]
    edges = case.tensor("edges").long()
    areas = [height * width for height, width in sizes]

    def split(name: str, side: int) -> list[Tensor]:
        return list(case.tensor(name).split([areas[photo] for photo in edges[:, side].tolist()]))

    return PairData.stack(edges, split("pts_i", 0), split("pts_j", 1), split("conf_i", 0), split("conf_j", 1), sizes)


def _centres(sizes: list[tuple[int, int]]) -> Tensor:
    """The reference's principal points."""
    return torch.tensor([[width / 2, height / 2] for height, width in sizes])


def _flat(padded: Tensor, data: PairData) -> Tensor:
    """The maps of all photos one after the other, without the padding."""
    return torch.cat([row[:area] for row, area in zip(padded, data.areas.tolist(), strict=True)])


def _check_state(case: Case, prefix: str, data: PairData, parameters: Parameters) -> None:
    """Compare those of the decoded values that the case holds under the prefix."""
    values = {
        "poses": parameters.world_from_camera(),
        "focals": parameters.focals().flatten(),
        "depths": _flat(parameters.depth(), data),
        "pw_scale": parameters.pairwise_scale(),
        "pw_poses": parameters.world_from_pair(),
        "pp": parameters.principal_points(),
    }
    for name, value in values.items():
        if f"{prefix}_{name}" in case.outputs:
            case.check(f"{prefix}_{name}", value)


def _objective(case: Case, data: PairData, **modes: str) -> Objective:
    normaliser = "per_edge" if case.config["optimizer"] == "modular" else "total"
    return Objective(
        data, **{"distance": case.config["dist"], "transform": case.config["conf"], **modes}, normaliser=normaliser
    )


def _recipe(case: Case) -> Recipe:
    config = case.config
    return Recipe(
        config["base_scale"],
        config["focal_break"],
        config["min_conf_thr"],
        config["niter_PnP"],
        config["lr"],
        config["lr_min"],
        tuple(config["adam_betas"]),
        config["adam_eps"],
    )


@runs("dust3r", "ga_steps*")
def alignment_steps(case: Case) -> None:
    recipe = _recipe(case)
    data = _pair_data(case)
    depth = torch.zeros(len(data.sizes), data.points_i.shape[1])
    for row, values in zip(depth, case.tensor("p_log_depth").split(data.areas.tolist()), strict=True):
        row[: len(values)] = values
    axes = 2 if case.config["fx_and_fy"] else 1
    start = Parameters(
        case.tensor("p_pw_poses"),
        case.tensor("p_im_poses"),
        depth,
        case.tensor("p_log_focal")[:, None].repeat(1, axes),
        torch.zeros(len(data.sizes), 2),
        _centres(data.sizes),
        recipe=recipe,
    )
    objective = _objective(case, data)
    _check_state(case, "start", data, start)
    _check_gradients(case, data, objective, start.clone())
    for entry in case.params["objectives"]:
        case.check(entry["name"], _objective(case, data, distance=entry["dist"], transform=entry["conf"])(start))
    free = ["pairwise", "poses", "log_depth", "log_focal"] + ["principal_offset"] * case.config["optimize_pp"]
    for run in case.params["runs"]:
        moved, steps, schedule = start.clone(), run["niter"], run["schedule"]
        losses = list(minimise_with_adam(objective, moved, steps, schedule, free))
        case.check(f"{run['name']}_losses", torch.tensor(losses))
        case.check(f"{run['name']}_lrs", torch.tensor([recipe.rate(k, steps, schedule) for k in range(steps)]))
        case.check(f"{run['name']}_loss_end", objective(moved))
        _check_state(case, run["name"], data, moved)


def _check_gradients(case: Case, data: PairData, objective: Objective, parameters: Parameters) -> None:
    leaves = {
        "grad_pw_poses": parameters.pairwise,
        "grad_im_poses": parameters.poses,
        "grad_log_focal": parameters.log_focal,
        "grad_log_depth": parameters.log_depth,
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    loss = objective(parameters)
    case.check("loss_start", loss)
    for name, gradient in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
        if name in case.outputs:
            case.check(name, _flat(gradient, data) if name == "grad_log_depth" else gradient)


@runs("dust3r", "ga_mst*")
def alignment_from_tree(case: Case) -> None:
    recipe = _recipe(case)
    data = _pair_data(case)
    centres = _centres(data.sizes)
    case.check("edge_scores", data.edge_scores())
    case.check("im_conf", _flat(data.photo_confidence(), data))
    _check_tree_focals(case, data)
    case.excuse("mst_focals", "reference bug: a new anchor's focal comes from the pointmap of the previous tree edge")
    # From here on with the reference's own focals, so that everything that follows from them is compared.
    start = start_from_tree(data, centres, torch.as_tensor(case.outputs["mst_focals"]), recipe)
    case.check("mst_edges", data.edges[start.tree])
    case.check("mst_points", _flat(start.points, data).flatten())
    case.check("mst_poses", start.world_from_camera)
    parameters = parameters_from_tree(data, start, centres, recipe)
    _check_state(case, "init", data, parameters)
    objective = _objective(case, data)
    case.check("loss_init", objective(parameters))
    losses = list(minimise_with_adam(objective, parameters, case.params["niter"], case.params["schedule"]))
    case.check("losses", torch.tensor(losses))
    _check_state(case, "final", data, parameters)
    case.check("loss_final", objective(parameters))


def _check_tree_focals(case: Case, data: PairData) -> None:
    """Every anchor of the tree starts with the focal of the first tree edge that it anchors."""
    start = start_from_tree(data, _centres(data.sizes))
    focal_of_edge = torch.as_tensor(case.outputs["focal_of_mst_edge"])
    anchors = data.edges[start.tree, 0].tolist()
    ours = [
        float(focal_from_pointmap(_anchor_map(data, row), _centres(data.sizes)[anchor]))
        for row, anchor in zip(start.tree, anchors, strict=True)
    ]
    case.check("focal_of_mst_edge", torch.tensor(ours))
    for anchor in set(anchors):
        torch.testing.assert_close(start.focals[anchor], focal_of_edge[anchors.index(anchor)], rtol=1e-4, atol=2e-4)


def _anchor_map(data: PairData, row: int) -> Tensor:
    height, width = data.sizes[int(data.edges[row, 0])]
    return data.points_i[row, : height * width].reshape(height, width, 3)


@runs("dust3r", "ga_known_poses*")
def alignment_with_known_cameras(case: Case) -> None:
    recipe = _recipe(case)
    data = _pair_data(case)
    known = case.tensor("known_poses"), case.tensor("known_focals"), _centres(data.sizes)
    ours = parameters_from_known_cameras(data, *known, recipe)
    _check_depths_are_of_best_pairs(case, data)
    reason = "reference bug: the camera of picture j is found with the focal and the confidence mask of picture i"
    case.excuse("init_pw_scale", reason)
    case.excuse("init_pw_poses", reason)
    case.check("init_poses", ours.world_from_camera())
    case.check("init_focals", ours.focals()[:, 0])
    # From here on with the reference's own pair frames and depths, so that everything that follows is compared.
    depth = torch.zeros(len(data.sizes), data.points_i.shape[1])
    for row, values in zip(depth, torch.as_tensor(case.outputs["init_depths"]).split(data.areas.tolist()), strict=True):
        row[: len(values)] = values
    frames = torch.as_tensor(case.outputs["init_pw_poses"])
    parameters = Parameters.encode(frames, known[0], depth, known[1], known[2], normalise_scale=False, recipe=recipe)
    objective = _objective(case, data)
    case.check("loss_init", objective(parameters))
    steps, schedule = case.params["niter"], case.params["schedule"]
    losses = list(minimise_with_adam(objective, parameters, steps, schedule, ["pairwise", "log_depth"]))
    case.check("losses", torch.tensor(losses))
    case.check("loss_end", objective(parameters))
    _check_state(case, "final", data, parameters)


def _check_depths_are_of_best_pairs(case: Case, data: PairData) -> None:
    """Initial depths are those of the best pair with the photo first, at the pair's scale."""
    scores, scales = data.edge_scores(), torch.as_tensor(case.outputs["init_pw_scale"])
    depths = []
    for photo, area in enumerate(data.areas.tolist()):
        row = max((data.edges[:, 0] == photo).nonzero()[:, 0].tolist(), key=lambda row: float(scores[row]))
        depths.append(data.points_i[row, :area, 2] * scales[row])
    case.check("init_depths", torch.cat(depths))


@runs("dust3r", "clean_pointcloud*")
def cleaning(case: Case) -> None:
    sizes = case.params["shapes_hw"]
    areas = [height * width for height, width in sizes]

    def maps(name: str, *last: int) -> list[Tensor]:
        parts = case.tensor(name).reshape(-1, *last).split(areas)
        return [part.reshape(height, width, *last) for part, (height, width) in zip(parts, sizes, strict=True)]

    inputs = case.tensor("K"), case.tensor("cam_from_world"), maps("depths"), maps("points", 3), maps("conf")
    for run in case.params["runs"]:
        cleaned = clean_pointcloud(*inputs, run["tol"], run["bad_conf"])
        case.check(run["name"], torch.cat([values.flatten() for values in cleaned]))


@runs("dust3r", "visloc_pnp*")
def localisation(case: Case) -> None:
    pixels, points, k = case.tensor("pts2d"), case.tensor("pts3d"), case.tensor("K")
    error, iterations = case.config["reprojection_error"], case.config["iterations"]
    found = solve_pnp(pixels, points, k, error, iterations, "opencv")
    assert found is not None
    case.check("pose", found.world_from_camera)
    truth = case.tensor("true_pose")
    case.check("t_err", (found.world_from_camera[:3, 3] - truth[:3, 3]).norm())
    case.check("r_err_deg", rotation_angle(found.world_from_camera[:3, :3].T @ truth[:3, :3]).rad2deg())
    straight = undistort_pixels(pixels, k, torch.tensor(case.params["distortion"]))
    distorted = solve_pnp(straight, points, k, error, iterations, "opencv")
    assert distorted is not None
    case.check("pose_distorted", distorted.world_from_camera)
    errors = case.inputs["trans_err"], case.inputs["rot_err"]
    case.check("medians", np.array(median_errors(*errors)))
    case.check("accuracy", np.array(recall_within(*errors, case.params["thresholds_m_deg"])))


@runs("dust3r", "pair_viewer*")
def two_views(case: Case) -> None:
    data, centres = _pair_data(case), _centres([tuple(size) for size in case.params["shapes_hw"]])
    rows = {(i, j): row for row, (i, j) in enumerate(data.edges.tolist())}
    case.check("edge_conf", data.edge_scores()[[rows[0, 1], rows[1, 0]]])
    focals = torch.stack([focal_from_pointmap(_anchor_map(data, rows[i, 1 - i]), centres[i]) for i in (0, 1)])
    case.check("focals", focals)
    case.check("pp", centres)
    k = intrinsics_matrix(focals, centres)
    solved = solve_two_views(
        _sides(data, rows[0, 1]), _sides(data, rows[1, 0]), k, case.config["min_conf_thr"], case.config["niter_PnP"]
    )
    assert solved is not None
    case.check("poses", solved.world_from_camera)
    case.check("depths", torch.cat([depth.flatten() for depth in solved.depth]))
    points = [
        transform_points(pose, pointmap_from_depth(depth, matrix))
        for pose, depth, matrix in zip(solved.world_from_camera, solved.depth, k, strict=True)
    ]
    case.check("points", torch.cat([values.flatten() for values in points]))


def _sides(data: PairData, row: int) -> tuple[Side, Side]:
    i, j = data.edges[row].tolist()
    maps = (data.points_i, data.confidence_i, data.sizes[i]), (data.points_j, data.confidence_j, data.sizes[j])
    first, second = (
        Side(points[row, : h * w].reshape(h, w, 3), confidence[row, : h * w].reshape(h, w))
        for points, confidence, (h, w) in maps
    )
    return first, second
