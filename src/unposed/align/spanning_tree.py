"""The published starts of DUSt3R's global alignment (section 3.4 and its code): a spanning tree, or known cameras."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.align.initialise import maximum_spanning_tree
from unposed.align.objective import PUBLISHED, PairData, Parameters, Recipe
from unposed.geometry.cameras import intrinsics_matrix, pixel_grid
from unposed.geometry.focal import focal_from_pointmap
from unposed.geometry.pnp import solve_pnp
from unposed.geometry.similarity import fit_camera_similarity
from unposed.geometry.transforms import fit_similarity, invert_rigid, rigid, transform_points


@dataclass(frozen=True, eq=False)
class TreeStart:
    """Everything placed along the maximum spanning tree, in the frame of its best pair."""

    tree: list[int]
    """Rows of the pairs in the order they were used."""
    points: Float[Tensor, "photos pixels 3"]
    world_from_camera: Float[Tensor, "photos 4 4"]
    focals: Float[Tensor, "photos"]


def start_from_tree(
    data: PairData,
    principal_point: Float[Tensor, "photos 2"],
    focals: Float[Tensor, "photos"] | None = None,
    recipe: Recipe = PUBLISHED,
) -> TreeStart:
    """Chain the pointmaps along the tree by closed-form similarities; PnP for photos that anchor no tree pair.

    ``focals`` are kept where given; else each comes from the tree pair where the photo is first, or its best pair.
    """
    photos, scores = len(data.sizes), data.edge_scores()
    points = data.points_i.new_zeros(photos, *data.points_i.shape[1:])
    poses: dict[int, Tensor] = {}
    found: dict[int, Tensor] = {} if focals is None else dict(enumerate(focals))
    placed: set[int] = set()
    used: list[int] = []
    waiting = maximum_spanning_tree(data.edges, scores, photos)
    while waiting:
        row = waiting.pop(0)
        i, j = data.edges[row].tolist()
        if not placed:
            points[i], points[j], poses[i] = data.points_i[row], data.points_j[row], torch.eye(4)
        elif i in placed:
            move = _similarity(data.points_i[row], points[i], data.confidence_i[row])
            points[j] = transform_points(move, data.points_j[row])
            poses.setdefault(i, _without_scale(move))
        elif j in placed:
            move = _similarity(data.points_j[row], points[j], data.confidence_j[row])
            points[i] = transform_points(move, data.points_i[row])
            poses.setdefault(i, _without_scale(move))
        else:
            waiting.append(row)
            continue
        placed |= {i, j}
        used.append(row)
        found.setdefault(i, _focal_of(data, row, principal_point))
    certain = data.photo_confidence() > recipe.certain_confidence
    for photo in range(photos):
        found.setdefault(photo, _focal_of(data, _best_row(data, scores, photo), principal_point))
        if photo not in poses:
            k = intrinsics_matrix(found[photo], principal_point[photo])
            poses[photo] = _pose_of(data.sizes[photo], points[photo], certain[photo], k, recipe.pnp_iterations)
    in_order = range(photos)
    return TreeStart(used, points, torch.stack([poses[p] for p in in_order]), torch.stack([found[p] for p in in_order]))


def parameters_from_tree(
    data: PairData, start: TreeStart, principal_point: Float[Tensor, "photos 2"], recipe: Recipe = PUBLISHED
) -> Parameters:
    """Raw parameters of the start, with the world scaled to the published convention."""
    first = data.edges[:, 0]
    pairwise = _similarity(data.points_i, start.points[first], data.confidence_i)
    scale = torch.linalg.det(pairwise[:, :3, :3]).pow(1 / 3)
    factor = recipe.base_scale / scale.log().mean().exp()
    poses = start.world_from_camera.clone()
    poses[:, :3, 3] *= factor
    depth = transform_points(invert_rigid(poses), start.points * factor)[..., 2]
    return Parameters.encode(pairwise, poses, depth, start.focals, principal_point, recipe=recipe)


def parameters_from_known_cameras(
    data: PairData,
    world_from_camera: Float[Tensor, "photos 4 4"],
    focals: Float[Tensor, "photos"],
    principal_point: Float[Tensor, "photos 2"],
    recipe: Recipe = PUBLISHED,
) -> Parameters:
    """Raw parameters when every camera is given: each pair fitted to its two cameras, depths of the best pairs."""
    certain = data.photo_confidence() > recipe.certain_confidence
    scores = data.edge_scores()
    frames = []
    for row, (i, j) in enumerate(data.edges.tolist()):
        k = intrinsics_matrix(focals[j], principal_point[j])
        pair = torch.stack(
            [torch.eye(4), _pose_of(data.sizes[j], data.points_j[row], certain[j], k, recipe.pnp_iterations)]
        )
        scale, rotation, translation = fit_camera_similarity(pair, world_from_camera[[i, j]])
        frames.append(rigid(scale * rotation, translation))
    pairwise = torch.stack(frames)
    scale = torch.linalg.det(pairwise[:, :3, :3]).pow(1 / 3)
    best = [_best_row(data, scores, photo) for photo in range(len(data.sizes))]
    depth = data.points_i[best, :, 2] * scale[best, None]
    return Parameters.encode(
        pairwise, world_from_camera, depth, focals, principal_point, normalise_scale=False, recipe=recipe
    )


def _similarity(source: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    scale, rotation, translation = fit_similarity(source, target, weights)
    return rigid(scale[..., None, None] * rotation, translation)


def _without_scale(similarity: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    scale = torch.linalg.det(similarity[:3, :3]).pow(1 / 3)
    return rigid(similarity[:3, :3] / scale, similarity[:3, 3])


def _best_row(data: PairData, scores: Float[Tensor, "edges"], photo: int) -> int:
    """Best pair that has the photo first."""
    return int(torch.where(data.edges[:, 0] == photo, scores, -torch.ones_like(scores)).argmax())


def _focal_of(data: PairData, row: int, principal_point: Float[Tensor, "photos 2"]) -> Float[Tensor, ""]:
    photo = int(data.edges[row, 0])
    height, width = data.sizes[photo]
    points = data.points_i[row, : height * width].reshape(height, width, 3)
    return focal_from_pointmap(points, principal_point[photo])


def _pose_of(
    size: tuple[int, int],
    points: Float[Tensor, "pixels 3"],
    chosen: Bool[Tensor, "pixels"],
    k: Float[Tensor, "3 3"],
    iterations: int,
) -> Float[Tensor, "4 4"]:
    pixels = pixel_grid(*size).reshape(-1, 2)
    rows = chosen[: len(pixels)].nonzero()[:, 0]
    found = solve_pnp(pixels[rows], points[rows], k, max_iterations=iterations, method="opencv")
    return torch.eye(4) if found is None else found.world_from_camera
