"""Cameras around a cloud of points, with exact and with wrong matches."""

import torch

from unposed.geometry.cameras import project
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import rigid, transform_points
from unposed.views import Camera, Matches, Pair, View


def ring(count: int = 5, width: int = 320, height: int = 240, original: float = 2.0) -> tuple[list[View], list[Camera]]:
    """Views whose originals are ``original`` times larger, on an arc around the origin; focal 300 view pixels."""
    affine = torch.tensor([[original, 0, (original - 1) / 2], [0, original, (original - 1) / 2], [0, 0, 1]]).double()
    size = int(width * original), int(height * original)
    k = torch.tensor([[300.0, 0, (width - 1) / 2], [0, 300, (height - 1) / 2], [0, 0, 1]])
    views, cameras = [], []
    for n in range(count):
        angle = 0.25 * (n - (count - 1) / 2)
        rotation = matrix_from_axis_angle(torch.tensor([0.03 * n, angle, 0.02 * n]))
        pose = rigid(rotation, rotation @ torch.tensor([0.0, 0.0, -4.0]))
        image = torch.full((height, width, 3), 40 * n, dtype=torch.uint8)
        views.append(View(f"{n}.jpg", image, affine, size))
        cameras.append(Camera(k, pose, width, height).through(affine, *size))
    return views, cameras


def cloud(count: int = 200, seed: int = 0) -> torch.Tensor:
    """Points within a ball of radius 1 about the origin."""
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8


def exact_matches(
    points: torch.Tensor, views: list[View], cameras: list[Camera], noise: float = 0.0, wrong: float = 0.0
) -> dict[Pair, Matches]:
    """Matches in view pixels of every pair (i < j); ``wrong`` of them lead to another point."""
    generator = torch.Generator().manual_seed(1)
    pixels = []
    for view, camera in zip(views, cameras, strict=True):
        small = camera.through(torch.linalg.inv(view.original_from_view), view.size[1], view.size[0])
        exact = project(transform_points(camera.camera_from_world, points), small.intrinsics)
        pixels.append(exact + noise * torch.randn(exact.shape, generator=generator))
    matches = {}
    for i in range(len(views)):
        for j in range(i + 1, len(views)):
            order = torch.arange(len(points))
            bad = torch.rand(len(points), generator=generator) < wrong
            order[bad] = torch.randint(len(points), (int(bad.sum()),), generator=generator)
            matches[i, j] = Matches(pixels[i], pixels[j][order], torch.ones(len(points)))
    return matches
