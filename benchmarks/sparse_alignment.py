"""Sparse alignment: `unposed.align.sparse` against MASt3R-SfM's published recipe, on the same matches, in one run.

    python -m benchmarks.sparse_alignment --views 10 20 40

Both start from the same canonical views and matches of a made-up scene, with perfect and with noisy predictions; the
time is that of the optimisation with its start. The published recipe is timed as it is usually written, with loops over
views and over ordered pairs and every pair in both orders, over a few steps; its final loss comes from all 600 steps of
`unposed.align.sparse_objective`, the same recipe in batched tensors, which is timed too. The loss is the published fine
loss. Set OMP_NUM_THREADS=1 on a machine that does other work at the same time.
"""

import argparse
import time

import numpy as np
import torch
from torch import Tensor

from benchmarks.synthetic_pairs import Noise, make_scene, predict, true_matches
from unposed.align.anchored import AnchoredMatches, anchor_matches
from unposed.align.canonical import CanonicalSums
from unposed.align.kinematic import KinematicTree, kinematic_tree
from unposed.align.sparse_objective import (
    CameraModel,
    SparseObjective,
    SparseParameters,
    SparseRecipe,
    Stage,
    free_parameters,
    minimise_stage,
    soft_power,
)
from unposed.align.sparse_solve import Freedom, solve_sparse
from unposed.align.sparse_start import start_cameras
from unposed.geometry.cameras import intrinsics_matrix
from unposed.geometry.rotations import matrix_from_quaternion
from unposed.geometry.transforms import invert_rigid, rigid, transform_points

RECIPE = SparseRecipe(certain_match=0.0)
NOISES = {"perfect": (Noise(0, 0, 0, 0, 0), 0.0), "noisy": (Noise(), 0.5)}
"""Errors of the pointmaps, and of the matches in pixels."""


def prepare(views: int, size: tuple[int, int], neighbours: int, kind: str) -> tuple[AnchoredMatches, Tensor]:
    """Anchored matches of a sliding window, and the principal points."""
    noise, pixels = NOISES[kind]
    scene = make_scene([size] * views)
    pairs = [(i, j) for i in range(views) for j in range(i + 1, min(views, i + neighbours + 1))]
    sums = [CanonicalSums(size, own_scales=True) for _ in range(views)]
    for i, j in pairs:
        for pair in ((i, j), (j, i)):
            prediction = predict(scene, pair, noise)
            sums[pair[0]].add(prediction.points_i, prediction.confidence_i)
    canonical = [one.finish() for one in sums]
    centres = scene.intrinsics[:, :2, 2].contiguous()
    focals = torch.stack([view.focal(centre) for view, centre in zip(canonical, centres, strict=True)])
    matches = {pair: true_matches(scene, pair, pixels, stride=8) for pair in pairs}
    return anchor_matches(canonical, focals, matches), centres


class LoopedObjective:
    """The published losses, one view and one ordered pair after the other."""

    def __init__(self, data: AnchoredMatches, tree: KinematicTree) -> None:
        self.data, self.tree, views = data, tree, len(data.sizes)
        self.typical = data.typical_depth
        rows = [(data.pair == row).nonzero()[:, 0] for row in range(len(data.pairs))]
        self.pairs = [(int(i), int(j), 0, r) for (i, j), r in zip(data.pairs, rows, strict=True)]
        self.pairs += [(j, i, 1, r) for i, j, _, r in self.pairs]
        self.first = np.cumsum([0, *data.anchors_per_view]).tolist()
        self.ends = [[(side, other, r) for i, other, side, r in self.pairs if i == view] for view in range(views)]

    def __call__(self, parameters: SparseParameters, stage: Stage) -> Tensor:
        data, cameras = self.data, self._cameras(parameters)
        points: dict[tuple[int, int], Tensor] = {}
        for view, (k, pose, depth, zoom) in enumerate(cameras):
            for side, other, rows in self.ends[view]:
                z = depth[data.anchor[rows, side] - self.first[view]] * (1 + (data.offset[rows, side] - 1) * zoom)
                xy = (data.pixel[rows, side] - k[:2, 2]) / k[0, 0]
                local = torch.cat([xy, torch.ones_like(xy[:, :1])], 1) * z[:, None]
                points[view, other] = transform_points(pose, local)
        total, weight = torch.zeros(()), torch.zeros(())
        for i, j, side, rows in self.pairs:
            confidence = data.confidence[rows]
            if stage == "coarse":
                cost = soft_power((points[i, j] - points[j, i]).norm(dim=-1), RECIPE.coarse_exponent)
            else:
                k, pose, _, _ = cameras[i]
                seen = transform_points(invert_rigid(pose), points[j, i]) @ k.T
                seen = (seen[:, :2] / seen[:, 2:].clamp(min=1e-3)).clamp(-1000, 2000)
                cost = soft_power((data.pixel[rows, side] - seen).norm(dim=-1), RECIPE.fine_exponent)
            total, weight = total + confidence @ cost, weight + confidence.sum()
        return total / weight

    def _cameras(self, parameters: SparseParameters) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """(K, world_from_camera, anchor depths, base focal over focal) of every view."""
        data, size = self.data, parameters.log_size.exp()
        unit = 1 / size.min()
        steps = [
            rigid(matrix_from_quaternion(q[[3, 0, 1, 2]]), t)
            for q, t in zip(parameters.quaternion, parameters.translation, strict=True)
        ]
        placed = {self.tree.root: steps[self.tree.root]}
        for parent, child in self.tree.edges:
            placed[child] = placed[parent] @ steps[child]
        cameras = []
        for view in range(len(data.sizes)):
            focal = parameters.log_focal[view].exp()
            pp = parameters.principal_point[view] * data.sizes[view]
            typical = size[view] * self.typical[view] * focal / data.base_focal[view]
            slope = (data.sizes[view] / 2 - pp) / focal
            rotation = placed[view][:3, :3]
            held = typical * torch.cat([slope, slope.new_ones(1)])
            pose = rigid(rotation, unit * (placed[view][:3, 3] - rotation @ held))
            own = parameters.depth[self.first[view] : self.first[view + 1]]
            depth = unit * (typical + (own - 1) * self.typical[view] * size[view])
            cameras.append((intrinsics_matrix(focal, pp), pose, depth, data.base_focal[view] / focal))
        return cameras


def looped_seconds(data: AnchoredMatches, tree: KinematicTree, centres: Tensor, steps: int) -> float:
    """Time of the whole recipe, from that of a few steps of either stage."""
    objective = LoopedObjective(data, tree)
    parameters = SparseParameters.start(data, centres, RECIPE)
    batched = SparseObjective(data, CameraModel(data, tree, RECIPE), None, RECIPE)
    seconds = 0.0
    stages: tuple[Stage, Stage] = ("coarse", "fine")
    for stage, count in zip(stages, (RECIPE.coarse_steps, RECIPE.fine_steps), strict=True):
        torch.testing.assert_close(objective(parameters, stage), batched(parameters, stage), rtol=1e-3, atol=1e-5)
        leaves = [getattr(parameters, name).requires_grad_() for name in free_parameters(stage)]
        optimiser = torch.optim.Adam(leaves, 1e-6)
        start = time.process_time()
        for _ in range(steps):
            optimiser.zero_grad()
            objective(parameters, stage).backward()
            optimiser.step()
        seconds += (time.process_time() - start) / steps * count
        for leaf in leaves:
            leaf.requires_grad_(False)
    return seconds


def published(data: AnchoredMatches, tree: KinematicTree, centres: Tensor) -> tuple[float, float]:
    """Final loss and seconds of the batched recipe."""
    start = time.process_time()
    parameters = SparseParameters.start(data, centres, RECIPE)
    objective = SparseObjective(data, CameraModel(data, tree, RECIPE), None, RECIPE)
    loss = float("nan")
    for stage in ("coarse", "fine"):
        for step in minimise_stage(objective, parameters, stage, RECIPE):
            loss = step.loss
    return loss, time.process_time() - start


def ours(data: AnchoredMatches, centres: Tensor) -> tuple[float, float]:
    """Final loss and seconds of our start and solver, with everything free that is in the published recipe."""
    start = time.process_time()
    everything = torch.ones(len(data.sizes), dtype=torch.bool)
    cameras = start_cameras(data, intrinsics_matrix(data.base_focal, centres))
    solution = solve_sparse(data, cameras, Freedom(everything, False, everything, everything))
    return solution.loss, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--neighbours", type=int, default=6, help="each view is paired with so many of the next")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--looped-steps", type=int, default=5, help="steps of the looped recipe that are timed")
    arguments = parser.parse_args()
    for kind in NOISES:
        for views in arguments.views:
            data, centres = prepare(views, tuple(arguments.size), arguments.neighbours, kind)
            tree = kinematic_tree(data.counts.double().numpy(), np.array(data.anchors_per_view))
            loss, seconds = ours(data, centres)
            theirs, batched = published(data, tree, centres)
            looped = looped_seconds(data, tree, centres, arguments.looped_steps)
            print(
                f"{kind}, {views} views, {len(data.pairs)} pairs, {len(data.pair)} matches: "
                f"ours {seconds:.2f} s ({1e3 * seconds / len(data.pairs):.1f} ms a pair), "
                f"published {batched:.1f} s batched, {looped:.1f} s looped; "
                f"{looped / seconds:.1f} times faster, loss {loss:.5f} : {theirs:.5f} = {loss / theirs:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
