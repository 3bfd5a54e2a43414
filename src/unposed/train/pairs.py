"""Training pairs for a two-view network, made on the device from rendered scenes without reading anything back."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unposed.geometry.cameras import pointmap_from_depth
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.synth import RenderedViews
from unposed.train.matching import Correspondences, covisible_pixels, sample_correspondences
from unposed.train.recipe import Batch

_COARSE = 32
"""Overlap is measured on depth maps thinned to about this many columns."""


def overlaps(views: RenderedViews) -> Float[Tensor, "scenes views views"]:
    """Share of the known pixels of view i that view j sees too, estimated on thinned depth maps."""
    step = max(1, views.depth.shape[-1] // _COARSE)
    depth = views.depth[..., ::step, ::step]
    intrinsics = views.intrinsics / views.intrinsics.new_tensor([step, step, 1])[:, None]
    scenes, count = depth.shape[:2]

    def along(values: Tensor, axis: int) -> Tensor:
        """Every view i (axis 2) or j (axis 1) of the square of pairs."""
        return values.unsqueeze(axis).expand(scenes, count, count, *values.shape[2:])

    j_from_i = invert_rigid(along(views.world_from_camera, 1)) @ along(views.world_from_camera, 2)
    _, seen = covisible_pixels(
        along(depth, 2), along(depth, 1), along(intrinsics, 2), along(intrinsics, 1), j_from_i, tolerance=0.1
    )
    known = (along(depth, 2) > 0).flatten(-2).sum(-1)
    return seen.sum(-1) / known.clamp(min=1)


def choose_pairs(
    overlap: Float[Tensor, "scenes views views"], per_scene: int, low: float, high: float, generator: torch.Generator
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """(scene, i, j) of ``per_scene`` random ordered pairs of different views of every scene.

    Pairs with an overlap in [low, high] come first; a scene with too few of them gives those that miss it least.
    """
    scenes, views, _ = overlap.shape
    missed = (low - overlap).clamp(min=0) + (overlap - high).clamp(min=0)
    lottery = torch.rand(overlap.shape, generator=generator, device=overlap.device)
    score = lottery + torch.where(missed > 0, -2 - 10 * missed, 0.0)
    score = score.masked_fill(torch.eye(views, dtype=torch.bool, device=overlap.device), -torch.inf)
    best = score.flatten(1).topk(per_scene, dim=1).indices.flatten()
    scene = torch.arange(scenes, device=overlap.device).repeat_interleave(per_scene)
    return scene, best // views, best % views


def pairs_of_views(
    views: RenderedViews,
    images: Float[Tensor, "scenes views 3 height width"],
    per_scene: int,
    overlap: tuple[float, float],
    n: int,
    generator: torch.Generator,
) -> Batch:
    """A batch of ``per_scene`` pairs of every scene with ``n`` correspondences each; see ``pair_batch``.

    ``images`` are what the network sees: the views' own, or augmented ones. ``overlap``: bounds for ``choose_pairs``.
    """
    scene, i, j = choose_pairs(overlaps(views), per_scene, *overlap, generator)
    count = views.depth.shape[1]
    return pair_batch(
        images.flatten(0, 1),
        views.depth.flatten(0, 1),
        views.intrinsics.flatten(0, 1),
        views.world_from_camera.flatten(0, 1),
        scene * count + i,
        scene * count + j,
        n,
        generator,
        unknown_is_sky=True,
    )


def pair_batch(
    images: Float[Tensor, "views 3 height width"],
    depth: Float[Tensor, "views height width"],
    intrinsics: Float[Tensor, "views 3 3"],
    world_from_camera: Float[Tensor, "views 4 4"],
    first: Int[Tensor, "pairs"],
    second: Int[Tensor, "pairs"],
    n: int,
    generator: torch.Generator,
    unknown_is_sky: bool = False,
) -> Batch:
    """What the loss of a pair network needs, for the pairs (first, second) of posed views.

    ``points_k`` of both views in camera 1, ``valid_k``, ``intrinsics_k``, ``camera_1_from_2``, ``n`` correspondences
    ``pixels_1``, ``pixels_2``, ``matched``; and ``view_k``, the rows of ``views`` (in [-1, 1]) that are the images:
    a view is in several pairs and needs encoding once. ``sky_k`` are the pixels without depth if those are sky, else
    none.
    """
    depth_1, depth_2, k_1, k_2 = depth[first], depth[second], intrinsics[first], intrinsics[second]
    camera_1_from_2 = invert_rigid(world_from_camera[first]) @ world_from_camera[second]
    index, covisible = covisible_pixels(depth_1, depth_2, k_1, k_2, invert_rigid(camera_1_from_2))
    matches = sample_correspondences(index, covisible, n, generator)
    return {
        "points_1": pointmap_from_depth(depth_1, k_1),
        "points_2": transform_points(camera_1_from_2, pointmap_from_depth(depth_2, k_2)),
        "valid_1": depth_1 > 0,
        "valid_2": depth_2 > 0,
        "sky_1": (depth_1 <= 0) & unknown_is_sky,
        "sky_2": (depth_2 <= 0) & unknown_is_sky,
        "intrinsics_1": k_1,
        "intrinsics_2": k_2,
        "camera_1_from_2": camera_1_from_2,
        "pixels_1": matches.pixels_1,
        "pixels_2": matches.pixels_2,
        "matched": matches.valid,
        "view_1": first,
        "view_2": second,
        "views": images * 2 - 1,
    }


def rows(batch: Batch, start: int, stop: int) -> Batch:
    """The pairs ``start`` ... ``stop - 1`` of a batch."""
    return {name: tensor if name == "views" else tensor[start:stop] for name, tensor in batch.items()}


def images_of(batch: Batch) -> tuple[Float[Tensor, "pairs 3 height width"], Float[Tensor, "pairs 3 height width"]]:
    """Images of both views of every pair, in [-1, 1]."""
    return batch["views"][batch["view_1"]], batch["views"][batch["view_2"]]


def correspondences_of(batch: Batch) -> Correspondences:
    """The correspondences of a pair batch."""
    return Correspondences(batch["pixels_1"], batch["pixels_2"], batch["matched"])
