"""Pair predictions of a made-up scene whose truth is known: a smooth relief seen by cameras on an arc.

Every pair has its own scale, its own small rigid error of the second view, smooth and pixel noise that grows where the
confidence is low, and patches of outliers, as predictions of a network have.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unposed.geometry.cameras import intrinsics_matrix, pixel_grid, pointmap_from_depth, project
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import invert_rigid, rigid, transform_points
from unposed.views import Matches, Pair, PairPrediction, View


@dataclass(frozen=True, eq=False)
class SyntheticScene:
    """Cameras and depth maps that are exact, and the views they belong to."""

    views: list[View]
    world_from_camera: Tensor
    intrinsics: Tensor
    depth: list[Tensor]

    def seen_by(self, world_from_camera: Tensor, intrinsics: Tensor) -> "SyntheticScene":
        """The same relief seen by other cameras, with views of the same sizes."""
        cameras = zip(world_from_camera, intrinsics, self.views, strict=True)
        depth = [_trace(pose, k, *view.size) for pose, k, view in cameras]
        return SyntheticScene(self.views, world_from_camera, intrinsics, depth)


@dataclass(frozen=True)
class Noise:
    """Errors of the predictions; all zero gives perfect ones up to a scale per pair."""

    smooth: float = 0.03
    """Relative depth error that varies slowly over the picture, and differs from pair to pair."""
    pixel: float = 0.005
    turn: float = 0.01
    """Radians by which view j is turned, as a whole, in the frame of view i."""
    shift: float = 0.01
    """The same for its position, relative to the scene's depth."""
    outliers: float = 0.05
    """Share of patches whose points are wrong."""


def make_scene(sizes: list[tuple[int, int]], focal: float = 0.9, seed: int = 0) -> SyntheticScene:
    """One camera per (height, width) on an arc of 100 degrees; focals are ``focal`` times the longer side, and vary."""
    generator = torch.Generator().manual_seed(seed)
    views, poses, intrinsics, depths = [], [], [], []
    for index, (height, width) in enumerate(sizes):
        angle = math.radians(-50 + 100 * index / max(1, len(sizes) - 1))
        centre = torch.tensor([4 * math.sin(angle), 0.4 * math.sin(3 * index), 4 - 4 * math.cos(angle)])
        look = torch.tensor([0.0, -angle, 0.0]) + 0.05 * torch.randn(3, generator=generator)
        pose = rigid(matrix_from_axis_angle(look), centre)
        f = max(height, width) * focal * (0.9 + 0.2 * float(torch.rand((), generator=generator)))
        k = intrinsics_matrix(f, torch.tensor([(width - 1) / 2, (height - 1) / 2]))
        image = torch.zeros(height, width, 3, dtype=torch.uint8)
        views.append(View(f"{index:03}.jpg", image, torch.eye(3, dtype=torch.float64), (width, height)))
        poses.append(pose)
        intrinsics.append(k)
        depths.append(_trace(pose, k, height, width))
    return SyntheticScene(views, torch.stack(poses), torch.stack(intrinsics), depths)


def predict(scene: SyntheticScene, pair: Pair, noise: Noise, seed: int = 0) -> PairPrediction:
    """What a network might say of the pair; the same for the same seed."""
    i, j = pair
    generator = torch.Generator().manual_seed(1_000_003 * seed + 1009 * i + j)
    scale = math.exp(0.3 * float(torch.randn((), generator=generator)))
    camera_j = invert_rigid(scene.world_from_camera[i]) @ scene.world_from_camera[j]
    wobble = rigid(
        matrix_from_axis_angle(noise.turn * torch.randn(3, generator=generator)),
        4 * noise.shift * torch.randn(3, generator=generator),
    )
    maps, confidences = [], []
    for view, transform in ((i, torch.eye(4)), (j, camera_j @ wobble)):
        points, confidence = _noisy_map(scene, view, noise, generator)
        maps.append(scale * transform_points(transform, points))
        confidences.append(confidence)
    return PairPrediction(maps[0], maps[1], confidences[0], confidences[1])


def predict_all(scene: SyntheticScene, noise: Noise, seed: int = 0) -> dict[Pair, PairPrediction]:
    """Predictions of all ordered pairs."""
    count = len(scene.views)
    return {(i, j): predict(scene, (i, j), noise, seed) for i in range(count) for j in range(count) if i != j}


def true_matches(scene: SyntheticScene, pair: Pair, noise: float = 0.0, stride: int = 4, seed: int = 0) -> Matches:
    """Where pixels of view i on a grid lie in view j, if it sees them, with Gaussian errors of ``noise`` pixels."""
    i, j = pair
    generator = torch.Generator().manual_seed(1_000_003 * seed + 1009 * i + j)
    pixels = pixel_grid(*scene.depth[i].shape)[stride // 2 :: stride, stride // 2 :: stride].reshape(-1, 2)
    x, y = pixels.long().unbind(-1)
    points = pointmap_from_depth(scene.depth[i], scene.intrinsics[i])[y, x]
    local = transform_points(invert_rigid(scene.world_from_camera[j]) @ scene.world_from_camera[i], points)
    seen = project(local, scene.intrinsics[j])
    limit = torch.tensor([scene.depth[j].shape[1] - 1.0, scene.depth[j].shape[0] - 1.0])
    visible = ((seen >= 0) & (seen <= limit)).all(-1) & (local[:, 2] > 0)
    x, y = seen.clamp(torch.zeros(2), limit).round().long().unbind(-1)
    visible &= (local[:, 2] / scene.depth[j][y, x] - 1).abs() < 0.05
    seen = (seen + noise * torch.randn(seen.shape, generator=generator)).clamp(torch.zeros(2), limit)
    return Matches(pixels[visible], seen[visible], torch.ones(int(visible.sum())))


def _noisy_map(scene: SyntheticScene, view: int, noise: Noise, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points in the view's own camera, and confidence."""
    depth = scene.depth[view]
    height, width = depth.shape
    trust = _smooth_field(height, width, generator)
    wrong = _smooth_field(height, width, generator) > torch.tensor(1 - 2 * noise.outliers).erfinv() * 2**0.5
    confidence = 1 + (1.5 + trust).exp()
    error = noise.smooth * _smooth_field(height, width, generator) * (-trust / 2).exp()
    error = error + noise.pixel * torch.randn(height, width, generator=generator)
    if noise.outliers > 0:
        error = torch.where(wrong, error + 0.5, error)
        confidence = torch.where(wrong, 1 + (confidence - 1) / 4, confidence)
    points = pointmap_from_depth(depth, scene.intrinsics[view]) * (1 + error[..., None])
    return points, confidence


def _smooth_field(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random field of unit variance, smooth over about a sixth of the picture."""
    coarse = torch.randn(1, 1, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0, 0]


def _surface(x: Tensor, y: Tensor) -> Tensor:
    """Height z of the relief."""
    return 4.0 + 0.5 * torch.sin(1.1 * x + 0.3) * torch.cos(0.9 * y) + 0.25 * torch.sin(2.3 * y + 0.7 * x)


def _trace(pose: Tensor, intrinsics: Tensor, height: int, width: int) -> Tensor:
    """z-depth at which every pixel's ray meets the relief, by damped fixed-point steps."""
    rays = pointmap_from_depth(torch.ones(height, width), intrinsics) @ pose[:3, :3].T
    depth = torch.full((height, width), 4.0)
    for _ in range(60):
        point = pose[:3, 3] + depth[..., None] * rays
        depth = depth + 0.5 * (_surface(point[..., 0], point[..., 1]) - point[..., 2]) / rays[..., 2].clamp(min=0.5)
    return depth.clamp(0.5, 20.0)
