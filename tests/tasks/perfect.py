"""A pair model that knows the truth of a procedural scene: whatever comes out wrong, the rest of the house did it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image

from unposed.geometry.cameras import map_pixels, pixel_grid, pointmap_from_depth
from unposed.geometry.transforms import transform_points
from unposed.io.resize import ImageRule
from unposed.synth import RenderedViews, render_scenes
from unposed.views import Camera, Pair, PairPrediction, View

HEIGHT, WIDTH = 96, 128


def rendered(views: int = 4, seed: int = 5) -> RenderedViews:
    """Views of one room."""
    return render_scenes(seed, 1, views, HEIGHT, WIDTH, kinds=("room",))


def write_photos(directory: Path, truth: RenderedViews) -> list[str]:
    """The views as PNG files; their names in order."""
    directory.mkdir(parents=True)
    names = [f"{k}.png" for k in range(truth.images.shape[1])]
    for name, image in zip(names, truth.images[0], strict=True):
        pixels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(directory / name)
    return names


def true_cameras(truth: RenderedViews) -> dict[str, Camera]:
    """Cameras of the photos by name."""
    rows = zip(truth.intrinsics[0], truth.world_from_camera[0], strict=True)
    height, width = truth.depth.shape[2:]
    return {f"{k}.png": Camera(i, p, width, height) for k, (i, p) in enumerate(rows)}


class PerfectModel:
    """Exact pointmaps, each pair at a scale of its own; counts the pairs it was asked for."""

    name = "perfect"
    metric = False

    def __init__(self, truth: RenderedViews, size: int = 112, blind: frozenset[str] = frozenset()) -> None:
        self.image_rule = ImageRule(size=size)
        self._truth, self._cameras, self._blind = truth, true_cameras(truth), blind
        self.decoded: list[Pair] = []
        self.stop_after: int | None = None

    def encode(self, views: Sequence[View]) -> list[Camera]:
        """The true camera of each view."""
        return [
            self._cameras[v.name].through(torch.linalg.inv(v.original_from_view), v.size[1], v.size[0]) for v in views
        ]

    def decode(
        self, views: Sequence[View], features: Sequence[Camera], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairPrediction]]:
        """Exact predictions; confidence 1 where there is nothing, and everywhere for photos in ``blind``."""
        for i, j in pairs:
            if self.stop_after is not None and len(self.decoded) >= self.stop_after:
                raise KeyboardInterrupt
            self.decoded.append((i, j))
            scale = 1 + 0.1 * ((3 * i + 5 * j) % 7)
            maps = []
            for k in (i, j):
                depth = self._depth(views[k])
                points = pointmap_from_depth(depth, features[k].intrinsics)
                i_from_k = features[i].camera_from_world @ features[k].world_from_camera
                blind = {views[i].name, views[j].name} & self._blind
                confidence = torch.where((depth > 0) & (not blind), 6.0, 1.0)
                maps.append((scale * transform_points(i_from_k, points), confidence))
            (points_i, confidence_i), (points_j, confidence_j) = maps
            yield (i, j), PairPrediction(points_i, points_j, confidence_i, confidence_j)

    def _depth(self, view: View) -> torch.Tensor:
        pixels = map_pixels(view.original_from_view, pixel_grid(*view.size, dtype=torch.float64)).round().long()
        k = list(self._cameras).index(view.name)
        depth = self._truth.depth[0, k]
        return depth[pixels[..., 1].clamp(0, depth.shape[0] - 1), pixels[..., 0].clamp(0, depth.shape[1] - 1)]
