"""MASt3R's regression and matching losses against the reference's numbers."""

from dataclasses import replace

import torch

from tests.parity.harness import Case, runs
from unposed.geometry.transforms import invert_rigid
from unposed.geometry.triangulation import triangulate_pixels, triangulate_with_neighbours
from unposed.train.correspondences import positives_and_negatives, reciprocal_pixels, without_partner
from unposed.train.losses import ConfidenceWeighted, PairOutput, PairTruth, split_views
from unposed.train.matching import Correspondences, Matching, average_precision, info_nce, unmatched_pixels
from unposed.train.metric_losses import MetricRegression


@runs("mast3r", "losses_regression*")
def regression(case: Case) -> None:
    def views(name: str, kind: type = float) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = case.tensor(f"gt1_{name}"), case.tensor(f"gt2_{name}")
        return (first.bool(), second.bool()) if kind is bool else (first, second)

    pose = invert_rigid(case.tensor("gt1_camera_pose"))
    moved = PairTruth.from_world(views("pts3d"), views("valid_mask", bool), pose)
    metric = case.tensor("gt1_is_metric_scale").bool()
    truth = PairTruth(moved.points, moved.valid, metric, views("sky_mask", bool))
    stride = case.params["norm_stride"]
    for name, entry in case.params["variants"].items():
        x1 = case.tensor("X1").requires_grad_()
        output = PairOutput((x1, case.tensor("X2")), (case.tensor("c1"), case.tensor("c2")))
        variant = _variant(entry)
        loss = ConfidenceWeighted(variant, case.params["alpha"])(output, truth)
        case.check(f"conf_{name}", loss.total.detach())
        case.check(f"conf_{name}_gradX1_b0", torch.autograd.grad(loss.total, x1)[0][0])
        case.check(f"detail_{name}", torch.stack(list(loss.parts.values())).detach())
        if name in case.params["norm_variants"]:
            predicted, target = variant.normalised(output, truth)
            for kind, joint in (("pr", predicted), ("gt", target)):
                for k, points in enumerate(split_views(joint, truth), 1):
                    case.check(f"norm_{name}_{kind}{k}_s{stride}", points[:, ::stride, ::stride].detach())
    for entry in case.params["tests"]:
        loss = _variant(entry)(PairOutput((case.tensor("X1"), case.tensor("X2"))), truth)
        case.check(f"test_{entry['name']}_gtscale{int(entry['gt_scale'])}", loss.total)


@runs("mast3r", "losses_matching*")
def matching(case: Case) -> None:
    _info_nce(case)
    _average_precision(case)
    params, pair = case.params, case.params["matching"]
    maps, confidence = (case.tensor("map1"), case.tensor("map2")), (case.tensor("qconf1"), case.tensor("qconf2"))
    truth = _correspondences(case)
    options = {"temperature": pair["temperature"], "mode": pair["mode"]}
    plain = Matching(**options, alpha=None)
    case.check("matching_infonce", plain(maps, None, truth).total)
    points = (case.tensor("X1"), case.tensor("X2"))
    case.check("matching_pts3d_infonce", replace(plain, kind="euclidean")(points, None, truth).total)
    weighted = Matching(**options, alpha=params["conf_alpha"])
    for mode in params["confmodes"]:
        maps[0].requires_grad_()
        confidence[0].requires_grad_()
        total = replace(weighted, confidence_product=mode == "prod")(maps, confidence, truth).total
        for_map, for_confidence = torch.autograd.grad(total, (maps[0], confidence[0]))
        case.check(f"confmatching_{mode}", total)
        case.check(f"confmatching_{mode}_grad_qconf1", for_confidence)
        if mode == "mean":
            case.check("confmatching_mean_grad_map1_sum", for_map.sum((1, 2)))
            case.check(f"scaled_{params['loss_weight']}", params["loss_weight"] * total)
    quantile = params["neg_conf_loss_quantile"]
    total = replace(weighted, negative_quantile=quantile)(maps, confidence, truth).total
    case.check(f"confmatching_mean_negq{quantile}", total)
    block, order = params["blocksize_small"], case.tensor("block_perm").long()
    case.check("matching_infonce_block", replace(plain, block=block)(maps, None, truth, order).total)
    case.check("confmatching_block", replace(weighted, block=block)(maps, confidence, truth, order).total)


def _info_nce(case: Case) -> None:
    params, valid = case.params, case.tensor("valid").bool()
    for mode in params["modes"]:
        for temperature in params["temperatures"]:
            terms = info_nce(case.tensor("d1"), case.tensor("d2"), temperature, mode)
            case.check(f"infonce_{mode}_t{temperature}_none", terms[valid])
            case.check(f"infonce_{mode}_t{temperature}_mean", terms[valid].mean())
        d1, d2 = case.tensor("d1").requires_grad_(), case.tensor("d2").requires_grad_()
        info_nce(d1, d2, params["grad_temperature"], mode)[valid].mean().backward()
        case.check(f"infonce_{mode}_grad_d1", d1.grad)
        case.check(f"infonce_{mode}_grad_d2", d2.grad)
    euc = params["euc"]
    terms = info_nce(case.tensor("d1"), case.tensor("d2"), euc["temperature"], euc["mode"], "euclidean")
    case.check(f"infonce_{euc['mode']}_euc", terms[valid])


def _average_precision(case: Case) -> None:
    valid = case.tensor("valid").bool()
    arrays = [case.tensor(name) for name in ("d1", "d2", "extra_neg")]
    found = average_precision(*arrays)[valid]
    for reduction in case.params["ap_reductions"]:
        value = {"none": found, "mean": found.mean(), "1-mean": 1 - found.mean()}[reduction]
        case.check(f"ap_torch_{reduction}", value)
    case.check("ap_sklearn_none", found)
    case.check("ap_torch_fp16_none", average_precision(*(array.half() for array in arrays))[valid])
    truth, maps = _correspondences(case), [case.tensor(f"map{k}").flatten(1, 2) for k in (1, 2)]
    first, second = (
        m.gather(1, pixels[..., None].expand(-1, -1, m.shape[2])) for m, pixels in zip(maps, truth[:2], strict=True)
    )
    for most in case.params["ap_negatives_padding"]:
        others = unmatched_pixels(truth.pixels_2, maps[1].shape[1], most)
        found = average_precision(first, second, maps[1], others)[truth.valid]
        case.check(f"matching_ap_negpad{most}", found.mean())


def _correspondences(case: Case) -> Correspondences:
    width = case.inputs["map1"].shape[2]
    pixels = [case.tensor(f"corres{k}").long() for k in (1, 2)]
    first, second = (p[..., 1] * width + p[..., 0] for p in pixels)
    return Correspondences(first, second, case.tensor("valid").bool())


def _variant(entry: dict) -> MetricRegression:
    by_metric = entry["norm_mode"].startswith("?")
    return MetricRegression(
        norm_mode=entry["norm_mode"].removeprefix("?"),
        gt_scale=entry["gt_scale"],
        shift_invariant=entry.get("shift_invariant", False),
        scale_invariant=entry.get("scale_invariant", False),
        max_metric_scale=entry.get("max_metric_scale") if by_metric else 0.0,
        log={False: None, True: "after", "before": "before"}[entry.get("loss_in_log", False)],
        sky_distance=entry["sky_loss_value"],
    )


@runs("mast3r", "gt_correspondences")
def gt_correspondences(case: Case) -> None:
    points = [case.tensor(f"pts3d_{k}") for k in (0, 1)]
    intrinsics = [case.tensor(f"camera_intrinsics_{k}") for k in (0, 1)]
    poses = [case.tensor(f"camera_pose_{k}") for k in (0, 1)]
    matched = reciprocal_pixels(*points, *intrinsics, *poses)
    counts = [p.shape[0] * p.shape[1] for p in points]
    count, share = case.params["n"], case.params["nneg"]
    positive, negative = positives_and_negatives(min(counts), len(matched[0]), count, share)
    drawn = case.tensor("permutation").long()[:positive]
    for k, (pixels, size) in enumerate(zip(matched, counts, strict=True)):
        width, side = points[k].shape[1], k + 1
        negatives = case.tensor(f"negatives{side}").long()
        assert len(negatives) == negative
        assert bool(without_partner(pixels, size)[negatives].all())
        case.check(f"recip_xy{side}", torch.stack([pixels % width, pixels // width], -1))
        trained = torch.cat([pixels[drawn], negatives])
        case.check(f"train_xy{side}", torch.stack([trained % width, trained // width], -1))
    case.check("train_valid", torch.arange(count) < positive)


@runs("mast3r", "triangulation")
def triangulation(case: Case) -> None:
    intrinsics, poses, matches = case.tensor("K"), case.tensor("E"), case.tensor("matches")
    chosen = case.tensor("pixel_index").long()
    projections = intrinsics @ poses[:, :, :3]
    some = matches[:, 0].flatten(1, 2)[:, chosen]
    pair = triangulate_pixels(projections[:, 0, None], projections[:, 1, None], some[..., :2], some[..., 2:4])
    case.check("triangulated_pair0", pair)
    points, depth, confidence = triangulate_with_neighbours(
        intrinsics, poses, matches, case.params["min_num_valids_ratio"]
    )
    case.check("agg_pts", points)
    case.check("agg_depth", depth)
    case.check("agg_conf", confidence)
