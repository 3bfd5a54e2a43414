"""What follows MASt3R-SfM's alignment against the reference's numbers: dense points, clean-up, TSDF, tracks."""

import numpy as np
import torch
from torch import Tensor

from unposed.align.canonical import CanonicalView
from unposed.align.clean import clean_pointcloud
from unposed.align.keypoints import merge_keypoints
from unposed.align.tracks import without_short_tracks
from unposed.align.tsdf import DepthFusion
from unposed.geometry.cameras import map_pixels, pointmap_from_depth
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.views import Matches, Pair

from .harness import Case, runs


@runs("mast3r-sfm", "dense_and_tsdf*")
def dense_and_tsdf(case: Case) -> None:
    sizes, stride = [tuple(size) for size in case.params["sizes_HW"]], case.params["subsample"]
    intrinsics, poses, base = case.tensor("K"), case.tensor("cam2w"), case.tensor("base_focals")
    relative, confidence = (_maps(case.tensor(name), sizes) for name in ("canon2", "conf"))
    anchors = case.tensor("depth").split([(h // stride) * (w // stride) for h, w in sizes])
    depth, points = [], []
    for i, size in enumerate(sizes):
        view = CanonicalView(torch.ones(*size, 3), confidence[i], relative[i], stride, torch.ones(1))
        depth.append(view.depth_on(anchors[i], base[i] / intrinsics[i, 0, 0]))
        points.append(transform_points(poses[i], pointmap_from_depth(depth[i], intrinsics[i])))
        case.check(f"dense_depth_{i}", depth[i].flatten())
        case.check(f"dense_pts_{i}", points[i].reshape(-1, 3))
    cleaned = clean_pointcloud(intrinsics, invert_rigid(poses), depth, points, confidence, case.params["clean_tol"])
    for i in range(len(sizes)):
        case.check(f"conf_clean0_{i}", confidence[i])
        case.check(f"conf_clean1_{i}", cleaned[i])
    for truncation in case.params["tsdf_thresholds"]:
        fusion = DepthFusion(intrinsics, poses, depth, confidence, truncation)
        value, visible = fusion.distance(case.tensor("tsdf_query"))
        case.check(f"tsdf{truncation}_value", value)
        case.check(f"tsdf{truncation}_valid", visible.float())
    refine = case.params["tsdf_refine"]
    assert refine["niter"] == 1
    fusion = DepthFusion(intrinsics, poses, depth, confidence, refine["thresh"])
    samples = refine["nsamples"]
    noise = case.tensor("noise").split([h * w * samples for h, w in sizes])
    for i, size in enumerate(sizes):
        case.check(f"tsdf_refined_depth_{i}", fusion.best_of(i, noise[i].reshape(*size, samples)))


def _maps(flat: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
    parts = flat.split([height * width for height, width in sizes])
    return [part.reshape(size) for part, size in zip(parts, sizes, strict=True)]


@runs("mast3r-sfm", "colmap_tracks*")
def colmap_tracks(case: Case) -> None:
    matches = _matches_by_database_id(case)
    for (i, j), found in matches.items():
        linear = torch.stack([_linear(case, i, found.points_a), _linear(case, j, found.points_b)], 1)
        case.check(f"pairmatch_{i}_{j}", linear.unique(dim=0))
    for length in case.params["min_len_track"]:
        _check_long_tracks(case, length, without_short_tracks(matches, length))


def _matches_by_database_id(case: Case) -> dict[Pair, Matches]:
    """Matches of every pair, the photo with the smaller id first."""
    counts, ids = case.inputs["match_counts"].tolist(), case.params["database_ids"]
    found: dict[Pair, Matches] = {}
    sides = zip(case.params["pairs"], *(case.tensor(name).split(counts) for name in ("xy_a", "xy_b")), strict=True)
    for (i, j), a, b in sides:
        if ids[i] > ids[j]:
            i, j, a, b = j, i, b, a
        found[i, j] = Matches(a.float(), b.float(), torch.ones(len(a)))
    return found


def _linear(case: Case, view: int, pixels: Tensor) -> Tensor:
    return pixels[:, 1].long() * case.params["network_sizes_HW"][view][1] + pixels[:, 0].long()


def _check_long_tracks(case: Case, length: int, matches: dict[Pair, Matches]) -> None:
    """Keypoints in the original photos, numbered by first appearance, and distinct links, sorted by pixels."""
    ids, keypoints = case.params["database_ids"], merge_keypoints(matches)
    number = torch.zeros(len(keypoints.view), dtype=torch.int64)
    for i, (height, width) in enumerate(case.params["original_sizes_HW"]):
        rows = [links[:, side] for pair, links in keypoints.links.items() for side in (0, 1) if pair[side] == i]
        distinct, first = np.unique(torch.cat([number[:0], *rows]).numpy(), return_index=True)
        ordered = torch.from_numpy(distinct[first.argsort()])
        number[ordered] = torch.arange(len(ordered))
        # The golden's pixels count from the picture's corner; our own writers add the half pixel for COLMAP.
        where = map_pixels(case.tensor("to_orig")[i].double(), keypoints.pixel[ordered].double() + 0.5)
        limit = torch.tensor([width - 0.01, height - 0.01], dtype=torch.float64)
        _check_unless_empty(case, f"len{length}_keypoints_{ids[i]}", where.clamp(limit * 0, limit))
    for (i, j), links in keypoints.links.items():
        places = [_linear(case, view, keypoints.pixel[links[:, side]]) for side, view in enumerate((i, j))]
        _, first = np.unique(torch.stack(places, 1).numpy(), axis=0, return_index=True)
        _check_unless_empty(case, f"len{length}_matches_{ids[i]}_{ids[j]}", number[links[torch.from_numpy(first)]])


def _check_unless_empty(case: Case, name: str, value: Tensor) -> None:
    """What is empty may be missing among the outputs."""
    if name in case.outputs or len(value):
        case.check(name, value)
