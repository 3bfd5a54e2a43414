"""Rendered scenes with exact depth and cameras, written as training sets lay them out."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from unposed.geometry.transforms import invert_rigid
from unposed.io.exr import write_exr
from unposed.synth import RenderedViews, render_scenes
from unposed.train.datasets.base import TrainingView


def write_posed_folder(folder, seed=3, height=60, width=80, views=4, **changes) -> RenderedViews:
    """A rendered scene as a folder of photos with ``gt.json``; ``changes`` of every row, ... leaves a key out."""
    folder.mkdir(parents=True)
    scene = render_scenes(seed, 1, views, height, width, kinds=("room",))
    images = {}
    for k in range(views):
        name = f"{k:03d}.png"
        pixels = (scene.images[0, k].permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / name)
        depth = (scene.depth[0, k] / 0.0005).clamp(0, 65535).round().numpy().astype(np.uint16)
        Image.fromarray(depth).save(folder / f"{k:03d}_depth.png")
        intrinsics = scene.intrinsics[0, k]
        images[name] = {
            "width": width,
            "height": height,
            "fx": float(intrinsics[0, 0]),
            "fy": float(intrinsics[1, 1]),
            "cx": float(intrinsics[0, 2]),
            "cy": float(intrinsics[1, 2]),
            "world_to_camera": invert_rigid(scene.world_from_camera[0, k]).tolist(),
            "depth": f"{k:03d}_depth.png",
        }
        images[name] = {key: value for key, value in (images[name] | changes).items() if value is not ...}
    (folder / "gt.json").write_text(json.dumps({"images": images, "depth_scale": 0.0005}))
    return scene


def rendered(seed: int = 3, views: int = 2, height: int = 48, width: int = 64) -> RenderedViews:
    """Views of one room."""
    return render_scenes(seed, 1, views, height, width, kinds=("room",))


def write_photo(path: Path, scene: RenderedViews, k: int) -> None:
    """The picture of view k; lossy where the suffix is a JPEG's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (scene.images[0, k].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(path, **({} if path.suffix == ".png" else {"format": "JPEG", "quality": 95}))


def write_depth_exr(path: Path, scene: RenderedViews, k: int) -> None:
    """Depth of view k in the channel that OpenCV writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_exr(path, scene.depth[0, k], channel="Y")


def write_depth_png(path: Path, scene: RenderedViews, k: int, per_unit: float = 1000.0) -> None:
    """Depth of view k times ``per_unit`` as a 16-bit PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((scene.depth[0, k] * per_unit).clamp(0, 65535).round().numpy().astype(np.uint16)).save(path)


def write_arrays(path: Path, **arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def camera(scene: RenderedViews, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics and world-from-camera pose of view k."""
    return scene.intrinsics[0, k].numpy(), scene.world_from_camera[0, k].numpy()


def is_view(view: TrainingView, scene: RenderedViews, k: int) -> bool:
    """Whether a view that was read is view k of the scene: its colours, depth, intrinsics and pose."""
    intrinsics, pose = camera(scene, k)
    colours = view.photo.image / 255 - scene.images[0, k].permute(1, 2, 0).numpy()
    depth = scene.depth[0, k].numpy()
    return bool(
        np.abs(colours).mean() < 0.03
        and np.allclose(view.photo.depth[view.valid], depth[view.valid], atol=0.002)
        and np.allclose(view.photo.intrinsics, intrinsics, rtol=1e-4)
        and np.allclose(view.world_from_camera, pose, atol=1e-4)
    )


def assert_reprojects(first: TrainingView, second: TrainingView) -> None:
    """Points of view 1 that fall into view 2 have the depth that view 2 says (unless something is in front of them)."""
    second_from_first = np.linalg.inv(second.world_from_camera) @ first.world_from_camera
    y, x = np.nonzero(first.valid)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(first.photo.intrinsics).T
    points = rays * first.photo.depth[y, x, None] @ second_from_first[:3, :3].T + second_from_first[:3, 3]
    seen = points @ second.photo.intrinsics.T
    u, v = np.rint(seen[:, :2] / seen[:, 2:]).astype(int).T
    width, height = second.photo.size
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (seen[:, 2] > 0)
    assert inside.mean() > 0.2
    expected, found = points[inside, 2], second.photo.depth[v[inside], u[inside]]
    known = found > 0
    assert (np.abs(found - expected)[known] < 0.05 * expected[known]).mean() > 0.7
