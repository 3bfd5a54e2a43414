"""MASt3R: fast reciprocal matching, exact to the index, and the windows of coarse-to-fine matching."""

import numpy as np
import torch
from torch import Tensor

from tests.parity.harness import Case, runs
from unposed.align.reciprocal import ROUNDS, ReciprocalMatcher, match_symmetric, start_grid, union_of_matches
from unposed.align.windows import choose_windows, fit_windows, overlapping_windows
from unposed.geometry.neighbours import nearest_neighbours
from unposed.geometry.recentring import recentred_crop
from unposed.views import Matches, PairPrediction


@runs("mast3r", "fast_nn")
def fast_nn(case: Case) -> None:
    a, b = case.tensor("descA"), case.tensor("descB")
    matcher = ReciprocalMatcher(a, b)
    for stride in case.params["subsamples"]:
        found = matcher.match(stride)
        for kind in ("dot", "l2"):  # on unit vectors the two are one
            _check_pixels(case, f"{kind}_s{stride}", *found, a, b)
        case.check(f"dot_s{stride}_idx1", found[0])
        case.check(f"dot_s{stride}_idx2", found[1])
    _basins(case, matcher, a, b)
    start = case.tensor("init_y").long() * a.shape[1] + case.tensor("init_x").long()
    for tolerance in case.params["pixel_tols"]:
        _check_pixels(case, f"tol{tolerance:g}", *matcher.match_from(start, tolerance), a, b)
    _check_pixels(case, "init_tol0", *matcher.match_from(start), a, b)
    flat_a, flat_b = a.flatten(0, 1), b.flatten(0, 1)
    for dist in case.params["brute_dists"]:
        for block in case.params["brute_block_sizes"]:
            case.check(f"brute_{dist}_block{block}_nnA", nearest_neighbours(flat_a, flat_b))
            case.check(f"brute_{dist}_block{block}_nnB", nearest_neighbours(flat_b, flat_a))
    _unions(case, matcher, a, b)


def _basins(case: Case, matcher: ReciprocalMatcher, a: Tensor, b: Tensor) -> None:
    stride = case.params["basin_subsample"]
    _check_pixels(case, "basin", *matcher.match(stride), a, b)
    start = start_grid(a.shape[0], a.shape[1], stride)
    basin = torch.full((a.shape[0] * a.shape[1] + 1,), -1)
    here = start
    for rounds in range(1, ROUNDS + 1):  # every pixel on the way, and where its next round leads
        there = matcher.follow(start, rounds=rounds).a
        basin[here] = there
        here = there
    case.check("basin", basin)


def _unions(case: Case, matcher: ReciprocalMatcher, a: Tensor, b: Tensor) -> None:
    qa, qb = case.tensor("confA"), case.tensor("confB")
    for row in case.params["nonsym"]:
        found = []
        for from_b, image in ((False, a), (True, b)):
            if row["pixel_tol"]:
                start = start_grid(image.shape[0], image.shape[1], row["subsample"])
                found.append(matcher.match_from(start, row["pixel_tol"], from_b=from_b))
            else:
                found.append(matcher.match(row["subsample"], from_b=from_b))
        _check_matches(case, f"nonsym_{row['name']}", union_of_matches(found, qa, qb))
    maps = {name: case.tensor(name) for name in ("descA2", "descB2", "confA2", "confB2")}
    none = torch.zeros(0)
    forward = PairPrediction(none, none, qa, qb, a, b, None, qa, qb)
    second = maps["confB2"], maps["confA2"]
    backward = PairPrediction(none, none, *second, maps["descB2"], maps["descA2"], None, *second)
    for stride in case.params["sym_subsamples"]:
        _check_matches(case, f"sym_s{stride}", match_symmetric(forward, backward, stride))


@runs("mast3r", "coarse_to_fine")
def coarse_to_fine(case: Case) -> None:
    for k, row in enumerate(case.params["cases"]):
        size_q, size_b = tuple(row["HWq"]), tuple(row["HWb"])
        forced_q, forced_b = (tuple(size) for size in row["forced_resolution_HW"])
        grid_q, grid_b = (overlapping_windows(size, row["maxdim"], row["overlap"]) for size in (size_q, size_b))
        windows_q, windows_b = fit_windows(grid_q, size_q, forced_q), fit_windows(grid_b, size_b, forced_b)
        case.check(f"grid_q_{k}", grid_q)
        case.check(f"grid_q_norm_forced_{k}", windows_q)
        case.check(f"grid_b_norm_free_{k}", fit_windows(grid_b, size_b))
        points = case.tensor(f"p1_{k}"), case.tensor(f"p2_{k}")
        crops_q, crops_b = choose_windows(*points, windows_q, windows_b, size_q, size_b, forced_q, forced_b)
        case.check(f"crops_q_{k}", crops_q)
        case.check(f"crops_b_{k}", crops_b)
    for k, size in enumerate(case.params["homography"]["target_sizes_WH"]):
        left, top, right, bottom = (round(edge) for edge in case.inputs["homo_crops"][k].tolist())
        crop = recentred_crop(case.tensor("homo_K"), (left, top, right, bottom), tuple(size) if size else None)
        case.check(f"homo{k}_K", crop.intrinsics)
        case.check(f"homo{k}_R", crop.photo_from_crop)
        case.check(f"homo{k}_H", crop.homography)
        case.check(f"homo{k}_size", crop.size)


def _check_matches(case: Case, name: str, matches: Matches) -> None:
    case.check(f"{name}_xy1", matches.points_a.int())
    case.check(f"{name}_xy2", matches.points_b.int())
    case.check(f"{name}_conf", matches.confidence)


def _check_pixels(case: Case, name: str, pixels_a: Tensor, pixels_b: Tensor, a: Tensor, b: Tensor) -> None:
    for side, pixels, image in (("xy1", pixels_a, a), ("xy2", pixels_b, b)):
        case.check(f"{name}_{side}", np.stack([pixels % image.shape[1], pixels // image.shape[1]], -1))
