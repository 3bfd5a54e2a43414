"""Rendered scenes with exact depth and cameras, written as training sets lay them out."""

import json

import numpy as np
from PIL import Image

from unposed.geometry.transforms import invert_rigid
from unposed.synth import RenderedViews, render_scenes


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
