"""The family's picture loader and the resizing of its localisation protocol against the references' numbers."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.parity.harness import Case, runs
from unposed.geometry.cameras import map_pixels
from unposed.io.photos import ImageRule, Photo, make_view
from unposed.io.visloc_resize import AspectRule

COLMAP_FROM_OURS = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=torch.float64)


@runs("dust3r", "load_images*")
def load_images(case: Case) -> None:
    """Every picture goes through a lossless file and the view maker."""
    count = sum(name.startswith("picture_") for name in case.inputs)
    photos = [save(case.inputs[f"picture_{q}"], case.scratch / f"{q}.png") for q in range(count)]
    step = case.params["stride"]
    mean, std = (np.array(case.params[key], np.float32)[:, None, None] for key in ("mean", "std"))
    for run in case.params["runs"]:
        rule = ImageRule(run["size"], run["patch_size"], run["square_ok"])
        views = [make_view(photo, rule).image for photo in photos]
        usable = case.outputs[f"true_shape_{run['name']}"] % run["patch_size"] == 0
        if usable.all():
            case.check(f"true_shape_{run['name']}", [view.shape[:2] for view in views])
        else:
            case.excuse(f"true_shape_{run['name']}", "reference bug: a side that is no multiple of the patch")
        for q in run["pictures"]:
            if not usable[q].all():
                case.excuse(f"pix_{run['name']}_{q}", "reference bug: a side that is no multiple of the patch")
                continue
            pixels = views[q].permute(2, 0, 1).numpy().astype(np.float32) / 255
            case.check(f"pix_{run['name']}_{q}", ((pixels - mean) / std)[:, ::step, ::step])


def save(pixels: np.ndarray, path: Path) -> Photo:
    Image.fromarray(pixels).save(path)
    return Photo(path.name, path, (pixels.shape[1], pixels.shape[0]), exif_focal=None, digest="")


@runs("dust3r", "visloc_resize*")
def visloc_resize(case: Case) -> None:
    for q, arguments in enumerate(case.params["cases"]):
        picture = torch.from_numpy(case.inputs[f"picture_{q}"]).permute(2, 0, 1).float() / 255 * 2 - 1
        plan = AspectRule(arguments["maxdim"], arguments["patch_size"]).plan(picture.shape[2], picture.shape[1])
        view = plan.apply(picture)
        step = case.params["stride"]
        case.check(f"shape_{q}", view.shape[1:])
        case.check(f"pix_{q}", view[:, ::step, ::step])

        to_original = COLMAP_FROM_OURS @ plan.original_from_view @ torch.linalg.inv(COLMAP_FROM_OURS)
        case.check(f"to_orig_{q}", to_original)
        case.check(f"to_resized_{q}", torch.linalg.inv(to_original))

        observed = torch.from_numpy(case.inputs[f"pts2d_{q}"]).double()
        moved = map_pixels(torch.linalg.inv(plan.original_from_view), observed)
        case.check(f"pts2d_resized_{q}", moved + 0.5)
        pixels = containing_pixel(moved)
        inside = ((pixels >= 0) & (pixels < torch.tensor(plan.view))).all(-1)
        case.check(f"pts2d_int_{q}", pixels[inside])
        case.check(f"n_valid_{q}", len(pixels[inside].unique(dim=0)))


@runs("mast3r", "visloc_resize*")
def visloc_resize_of_many_sizes(case: Case) -> None:
    sizes = case.params["sizes_HW"]
    rule = AspectRule(case.params["maxdim"], case.params["patch"])
    plans = [rule.plan(width, height) for height, width in sizes]
    case.check("target_HW", [plan.view[::-1] for plan in plans])
    to_original = [COLMAP_FROM_OURS @ plan.original_from_view @ torch.linalg.inv(COLMAP_FROM_OURS) for plan in plans]
    case.check("to_orig", torch.stack(to_original))
    case.check("to_rescaled", torch.linalg.inv(torch.stack(to_original)))

    plan = plans[case.params["point_image"]]
    moved = map_pixels(torch.linalg.inv(plan.original_from_view), case.tensor("pts2d").double())
    case.check("rescaled", moved + 0.5)
    pixels = containing_pixel(moved)
    inside = ((pixels >= 0) & (pixels < torch.tensor(plan.view))).all(-1)
    case.check("rescaled_int", pixels[inside])
    seen = {(int(y), int(x)): k for k, (x, y) in enumerate(pixels) if inside[k]}  # later points overwrite earlier ones
    case.check("valid_rc", sorted(seen))
    case.check("valid_pts3d", case.tensor("pts3d")[[seen[pixel] for pixel in sorted(seen)]])


def containing_pixel(points: torch.Tensor) -> torch.Tensor:
    """The pixel that each point lies in; a point on a border, up to rounding, lies in the right or lower pixel."""
    return (points + 0.5 + 1e-5).floor().long()
