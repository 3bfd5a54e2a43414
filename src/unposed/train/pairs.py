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
    world_from = views.world_from_camera
    return pair_batch(
        (images[scene, i], images[scene, j]),
        (views.depth[scene, i], views.depth[scene, j]),
        (views.intrinsics[scene, i], views.intrinsics[scene, j]),
        invert_rigid(world_from[scene, i]) @ world_from[scene, j],
        n,
        generator,
    )


def pair_batch(
    images: tuple[Float[Tensor, "pairs 3 h w"], Float[Tensor, "pairs 3 h w"]],
    depth: tuple[Float[Tensor, "pairs h w"], Float[Tensor, "pairs h w"]],
    intrinsics: tuple[Float[Tensor, "pairs 3 3"], Float[Tensor, "pairs 3 3"]],
    camera_1_from_2: Float[Tensor, "pairs 4 4"],
    n: int,
    generator: torch.Generator,
) -> Batch:
    """What the loss of a pair network needs.

    ``images_k`` in [-1, 1]; ``points_k`` in camera 1; ``valid_k``; ``intrinsics_k``; ``camera_1_from_2``; and ``n``
    correspondences ``pixels_1``, ``pixels_2``, ``matched``.
    """
    points_2 = transform_points(camera_1_from_2, pointmap_from_depth(depth[1], intrinsics[1]))
    index, covisible = covisible_pixels(*depth, *intrinsics, invert_rigid(camera_1_from_2))
    matches = sample_correspondences(index, covisible, n, generator)
    return {
        "images_1": images[0] * 2 - 1,
        "images_2": images[1] * 2 - 1,
        "points_1": pointmap_from_depth(depth[0], intrinsics[0]),
        "points_2": points_2,
        "valid_1": depth[0] > 0,
        "valid_2": depth[1] > 0,
        "intrinsics_1": intrinsics[0],
        "intrinsics_2": intrinsics[1],
        "camera_1_from_2": camera_1_from_2,
        "pixels_1": matches.pixels_1,
        "pixels_2": matches.pixels_2,
        "matched": matches.valid,
    }


def correspondences_of(batch: Batch) -> Correspondences:
    """The correspondences of a pair batch."""
    return Correspondences(batch["pixels_1"], batch["pixels_2"], batch["matched"])
