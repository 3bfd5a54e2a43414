"""What a pair network can do, measured on pairs with ground truth: points, relative pose, focal length, matches."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unposed.geometry.cameras import pixel_grid
from unposed.geometry.focal import focal_from_pointmap
from unposed.geometry.pnp import REPROJECTION_ERROR, solve_pnp
from unposed.geometry.pose_errors import pose_auc, pose_error
from unposed.geometry.transforms import invert_rigid
from unposed.train.losses import optimal_scaling
from unposed.train.pairs import correspondences_of, images_of, rows
from unposed.train.recipe import Batch

ViewMaps = dict[str, Tensor]
"""``points`` (B H W 3, camera 1), ``confidence`` (B H W) and, with a matching head, ``descriptors`` (B H W C)."""
PairForward = Callable[[Tensor, Tensor], tuple[ViewMaps, ViewMaps]]
"""A pair network: images of both views in [-1, 1] (B 3 H W) to the maps of both views."""

AUC_THRESHOLDS = (5, 10, 20, 30)
_PNP_POINTS = 1500
_LEAST_BASELINE = 0.02
_CHUNK_PIXELS = 32 * 224 * 224


@torch.no_grad()
def evaluate_pairs(model: PairForward, batch: Batch) -> dict[str, float]:
    """Means over the pairs of a batch (see ``unposed.train.pairs.pair_batch``).

    ``point_error``: distance to the truth after the best scale, over the mean distance of the truth from camera 1.
    ``auc@t``: exact AUC of the relative pose error, in degrees, from PnP of view 2 with true intrinsics.
    ``focal_error``: relative, median over pairs, from the points of view 1. ``match_inliers``: share of the true
    correspondences of which the descriptor of view 1 finds its partner among all pixels of view 2, within 1/64 of
    the width.
    """
    pairs, height, width = batch["valid_1"].shape
    chunk = max(1, _CHUNK_PIXELS // (height * width))
    errors: dict[str, list[Tensor]] = {}
    for start in range(0, pairs, chunk):
        part = rows(batch, start, start + chunk)
        maps_1, maps_2 = model(*images_of(part))
        maps_1, maps_2 = ({k: v.float() for k, v in maps.items()} for maps in (maps_1, maps_2))
        errors.setdefault("point", []).append(point_errors(maps_1, maps_2, part))
        errors.setdefault("pose", []).append(relative_pose_errors(maps_2, part))
        errors.setdefault("focal", []).append(focal_errors(maps_1, part))
        if "descriptors" in maps_1:
            errors.setdefault("match", []).append(match_inliers(maps_1["descriptors"], maps_2["descriptors"], part))
    per_pair = {name: torch.cat([e.cpu() for e in parts]) for name, parts in errors.items()}
    result = {"point_error": per_pair["point"].mean().item(), "focal_error": per_pair["focal"].nanmedian().item()}
    pose = per_pair["pose"]
    auc = pose_auc(pose[~pose.isnan()].numpy(), AUC_THRESHOLDS)
    result |= {f"auc@{t}": area for t, area in zip(AUC_THRESHOLDS, auc, strict=True)}
    if "match" in per_pair:
        result["match_inliers"] = per_pair["match"].nanmean().item()
    return result


def point_errors(maps_1: ViewMaps, maps_2: ViewMaps, batch: Batch) -> Float[Tensor, "pairs"]:
    """Mean distance between predicted and true points of both views after the best common scale, in relative units."""
    points, truth = (maps_1["points"], maps_2["points"]), (batch["points_1"], batch["points_2"])
    valid = (batch["valid_1"], batch["valid_2"])
    scale = optimal_scaling(truth, points, valid, "median")[:, None, None, None]
    mask = torch.cat([v.flatten(1) for v in valid], 1)
    distance = [(scale * p - t).norm(dim=-1).flatten(1) for p, t in zip(points, truth, strict=True)]
    size = [t.norm(dim=-1).flatten(1) for t in truth]
    kept = torch.where(mask, torch.cat(distance, 1), 0.0).sum(1)
    return kept / torch.where(mask, torch.cat(size, 1), 0.0).sum(1).clamp(min=1e-8)


def relative_pose_errors(maps_2: ViewMaps, batch: Batch) -> Float[Tensor, "pairs"]:
    """Degrees: the larger of rotation and translation-direction error of view 2's camera; infinite where PnP fails.

    NaN where the baseline is below a fiftieth of the mean distance: such a translation has no direction to speak of.
    """
    _, height, width = batch["valid_2"].shape
    pixels = pixel_grid(height, width).flatten(0, 1)
    kept = min(_PNP_POINTS, height * width)
    best = maps_2["confidence"].flatten(1).topk(max(kept, height * width // 2), dim=1).indices
    chosen = best[:, torch.linspace(0, best.shape[1] - 1, kept).long()].cpu()  # evenly over the more certain half
    points = maps_2["points"].flatten(1, 2).cpu()
    intrinsics, truth = batch["intrinsics_2"].cpu(), batch["camera_1_from_2"].cpu()
    distance = _mean_distance(batch["points_1"], batch["valid_1"]).cpu()
    still = truth[:, :3, 3].norm(dim=-1) < _LEAST_BASELINE * distance
    errors = torch.where(still, torch.nan, torch.inf)
    reprojection = max(1.5, REPROJECTION_ERROR * width / 512)
    for k in torch.nonzero(~still).flatten().tolist():
        found = solve_pnp(pixels[chosen[k]], points[k, chosen[k]], intrinsics[k], reprojection, 200)
        if found is not None:
            errors[k] = pose_error(found.world_from_camera, truth[k])
    return errors


def _mean_distance(points: Float[Tensor, "pairs h w 3"], valid: Tensor) -> Float[Tensor, "pairs"]:
    distance = torch.where(valid, points.norm(dim=-1), 0.0)
    return distance.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)


def focal_errors(maps_1: ViewMaps, batch: Batch) -> Float[Tensor, "pairs"]:
    """Relative error of the focal length that view 1's points tell."""
    focal = focal_from_pointmap(maps_1["points"], batch["intrinsics_1"][:, :2, 2])
    truth = batch["intrinsics_1"][:, 0, 0]
    return (focal - truth).abs() / truth


def match_inliers(
    descriptors_1: Float[Tensor, "pairs h w c"], descriptors_2: Float[Tensor, "pairs h w c"], batch: Batch
) -> Float[Tensor, "pairs"]:
    """Share of the true correspondences that the nearest descriptor finds; NaN for a pair without any."""
    truth = correspondences_of(batch)
    width = descriptors_2.shape[2]
    shares = []
    for k in range(len(descriptors_1)):
        query = descriptors_1[k].flatten(0, 1)[truth.pixels_1[k]]
        found = (query @ descriptors_2[k].flatten(0, 1).T).argmax(1)
        gap_x = found % width - truth.pixels_2[k] % width
        gap_y = found // width - truth.pixels_2[k] // width
        hit = (gap_x.square() + gap_y.square()) <= max(1, width / 64) ** 2
        shares.append((hit & truth.valid[k]).sum() / truth.valid[k].sum())
    return torch.stack(shares)


@torch.no_grad()
def picture(model: PairForward, batch: Batch, count: int = 6) -> UInt8[np.ndarray, "height width 3"]:
    """A row per pair: both images; depth of view 1, predicted and true; view 2's depth; both confidences."""
    part = rows(batch, 0, count)
    images = images_of(part)
    maps_1, maps_2 = model(*images)
    camera_2_from_1 = invert_rigid(part["camera_1_from_2"])[:, None, None]
    in_2 = [(camera_2_from_1[..., 2, :3] * p).sum(-1) for p in (maps_2["points"].float(), part["points_2"])]
    columns = [
        _pixels(images[0]),
        _pixels(images[1]),
        _colours(part["points_1"][..., 2], part["valid_1"]),
        _colours(maps_1["points"][..., 2].float(), torch.ones_like(part["valid_1"])),
        _colours(in_2[1], part["valid_2"]),
        _colours(in_2[0], torch.ones_like(part["valid_2"])),
        _colours(maps_1["confidence"].float(), torch.ones_like(part["valid_1"])),
        _colours(maps_2["confidence"].float(), torch.ones_like(part["valid_2"])),
    ]
    return np.concatenate([np.concatenate(list(column), 0) for column in columns], 1)


def _pixels(images: Float[Tensor, "rows 3 h w"]) -> UInt8[np.ndarray, "rows h w 3"]:
    return ((images.permute(0, 2, 3, 1) + 1) * 127.5).clamp(0, 255).byte().cpu().numpy()


def _colours(values: Float[Tensor, "rows h w"], valid: Tensor) -> UInt8[np.ndarray, "rows h w 3"]:
    """Colour maps of ranks between the 2nd and the 98th percentile of each row; black where not valid."""
    painted = []
    for row, mask in zip(values.cpu().numpy(), valid.cpu().numpy(), strict=True):
        known = row[mask & np.isfinite(row)]
        low, high = np.percentile(known, [2, 98]) if len(known) else (0.0, 1.0)
        grey = np.nan_to_num((row - low) / max(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)
        colour = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
        painted.append(colour * mask[..., None])
    return np.stack(painted)
