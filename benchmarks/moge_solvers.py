"""MoGe's two solvers against plain implementations of the same problems, on the same input in the same run.

    python benchmarks/moge_solvers.py [--images 32] [--points 1024] [--threads 1]

Focal and shift: against one scipy least-squares solve per image (Levenberg-Marquardt from shift 0, ftol 1e-3, 64 x 64
samples). Alignment: against sorting every breakpoint for every anchor, in blocks of anchors.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from unposed.geometry.focal_shift import recover_focal_shift, sampled
from unposed.geometry.robust_alignment import align_points_scale_xyz_shift, align_points_scale_z_shift
from unposed.geometry.view_plane import view_plane

HEIGHT, WIDTH = 480, 640
BLOCK = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    focal_and_shift(options.images)
    source, target, weights = point_sets(options.points)
    for name, solver, anchored in (
        ("scale + z shift", align_points_scale_z_shift, [False, False, True]),
        ("scale + xyz shift", align_points_scale_xyz_shift, [True, True, True]),
    ):
        for truncation in (None, 1.0):
            alignment(name, solver, torch.tensor(anchored), (source, target, weights), truncation)


def focal_and_shift(images: int) -> None:
    points, mask = pointmaps(images)
    ours_time, ours = timed(lambda: recover_focal_shift(points, mask), repeats=5)
    plain_time, plain = timed(lambda: [plain_focal_shift(p, m) for p, m in zip(points, mask, strict=True)])
    gap = max(abs(float(s) - shift) for s, (_, shift) in zip(ours.shift, plain, strict=True))
    print(
        f"focal and shift, {images} images: scipy {plain_time * 1e3 / images:.2f} ms an image, "
        f"ours {ours_time * 1e3 / images:.2f} ms, {plain_time / ours_time:.1f} x faster; shifts differ by {gap:.1e}"
    )


def alignment(name: str, solver: Callable, anchored: Tensor, problem: tuple, truncation: float | None) -> None:
    ours_time, ours = timed(lambda: solver(*(values[None] for values in problem), truncation), repeats=3)
    plain_time, plain = timed(lambda: plain_alignment(*problem, anchored, truncation))
    source, target, weights = problem
    error = weights[:, None] * (ours.scale * source + ours.shift - target).abs()
    loss = float((error if truncation is None else error.clamp(max=truncation)).sum())
    print(
        f"{name}, {len(source)} points, truncation {truncation}: plain {plain_time:.2f} s, ours {ours_time:.3f} s, "
        f"{plain_time / ours_time:.1f} x faster; loss {plain:.4f} and {loss:.4f}"
    )


def timed(function: Callable, repeats: int = 1) -> tuple[float, object]:
    """Best time of some runs after one to warm up (none where a single run is asked for), and the result."""
    result, times = None, []
    for _ in range(repeats + (repeats > 1)):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def pointmaps(images: int) -> tuple[Tensor, Tensor]:
    """Smooth random surfaces seen by cameras of random focal lengths, shifted along z, with noise, and masks."""
    stream = torch.Generator().manual_seed(0)
    uv = view_plane(HEIGHT, WIDTH, WIDTH / HEIGHT)
    coarse = torch.rand(images, 1, 6, 8, generator=stream)
    depth = 2 + 4 * torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")[:, 0]
    focal = 0.8 + torch.rand(images, 1, 1, 1, generator=stream)
    points = torch.cat([uv / focal * depth[..., None], depth[..., None]], -1)
    points *= 1 + 0.02 * torch.randn(points.shape, generator=stream)
    points[..., 2] -= 0.9 * points[..., 2].amin((1, 2), keepdim=True) * torch.rand(images, 1, 1, generator=stream)
    return points, torch.rand(images, HEIGHT, WIDTH, generator=stream) > 0.2


def plain_focal_shift(points: Tensor, mask: Tensor) -> tuple[float, float]:
    uv = sampled(view_plane(HEIGHT, WIDTH, WIDTH / HEIGHT)[None])[0]
    keep = sampled(mask[None])[0]
    xyz, uv = sampled(points[None])[0][keep].numpy(), uv[keep].numpy()

    def focal(shift: float) -> tuple[float, np.ndarray]:
        q = xyz[:, :2] / (xyz[:, 2:] + shift)
        return float((q * uv).sum() / (q * q).sum()), q

    def residual(shift: np.ndarray) -> np.ndarray:
        f, q = focal(float(shift[0]))
        return (f * q - uv).ravel()

    shift = float(least_squares(residual, x0=0.0, ftol=1e-3, method="lm").x[0])
    return focal(shift)[0], shift


def point_sets(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """A point set, the same scaled, shifted, with noise and 15 % outliers, and inverse-depth weights with zeros."""
    stream = torch.Generator().manual_seed(0)
    z = 1 / (0.05 + 0.9 * torch.rand(n, 1, generator=stream))
    target = torch.cat([1.4 * (torch.rand(n, 2, generator=stream) - 0.5) * z, z], -1)
    source = target / 2.3 * (1 + 0.08 * torch.randn(n, 1, generator=stream))
    source[:, 2] += 0.4
    wild = torch.rand(n, 1, generator=stream) < 0.15
    source = torch.where(wild, source * (0.3 + 2 * torch.rand(n, 1, generator=stream)), source)
    return source, target, (torch.rand(n, generator=stream) > 0.1) / z[:, 0]


def plain_alignment(
    source: Tensor, target: Tensor, weights: Tensor, anchored: Tensor, truncation: float | None
) -> float:
    """Loss of the best anchor: every anchor's scalar problem by sorting all its breakpoints."""
    w = weights[:, None].expand_as(source).flatten()
    best = torch.inf
    for anchors in (weights > 0).nonzero()[:, 0].split(max(1, BLOCK // source.numel())):
        x, y = (
            (values - torch.where(anchored, values[anchors], 0.0)[:, None]).flatten(1) for values in (source, target)
        )
        best = min(best, float(plain_scalar(x, y, w.expand_as(x), truncation).min()))
    return best


def plain_scalar(x: Tensor, y: Tensor, w: Tensor, truncation: float | None) -> Tensor:
    y, x = torch.where(x < 0, -y, y), x.abs()
    wx, ratio = w * x, y / x.clamp(min=1e-7)
    order = ratio.argsort(1)
    if truncation is None:
        slope = 2 * wx.gather(1, order).cumsum(1) - wx.sum(1, keepdim=True)
        a = ratio.gather(1, order.gather(1, (slope >= 0).int().argmax(1, keepdim=True)))
        return (w * (a * x - y).abs()).sum(1)
    edges = [(w * y + sign * truncation) / wx.clamp(min=1e-7) for sign in (-1, 1)]

    def below(keys: Tensor, side: str) -> Tensor:
        keys, order = keys.sort(1)
        total = torch.nn.functional.pad(wx.gather(1, order).cumsum(1), (1, 0))
        return total.gather(1, torch.searchsorted(keys, ratio, side=side))

    left, right = (2 * below(ratio, side) - below(edges[0], side) - below(edges[1], side) for side in ("left", "right"))
    row, column = ((left < 0) & (right >= 0)).nonzero(as_tuple=True)
    losses = torch.full((len(x),), torch.inf)
    for part in torch.arange(len(row)).split(max(1, BLOCK // x.shape[1])):
        r = row[part]
        at = (w[r] * (ratio[r, column[part], None] * x[r] - y[r]).abs()).clamp(max=truncation).sum(1)
        losses.scatter_reduce_(0, r, at, "amin")
    return losses


if __name__ == "__main__":
    main()
