"""Small synthetic things with exact answers, for tests of several parts."""

import numpy as np
import torch

from unposed.geometry.cameras import pixel_grid, project
from unposed.geometry.transforms import invert_rigid, rigid, transform_points
from unposed.scene import Scene, SceneView
from unposed.views import Camera, Tracks, View


def box_scene(
    views: int = 4,
    size: tuple[int, int] = (24, 32),
    original_size: tuple[int, int] = (132, 96),
    metric: bool = False,
    names: tuple[str, ...] | None = None,
) -> Scene:
    """Cameras on an arc that look into a room corner (three planes), with exact depth and exact tracks.

    ``size`` is (height, width) of the views, ``original_size`` (width, height) of the photos; for the default sizes a
    view is a crop of two original pixels on either side and a resize by four. Names are by default ``photo_0.png``, ...
    """
    height, width = size
    names = names or tuple(f"photo_{k}.png" for k in range(views))
    scale = original_size[1] / height
    crop = (original_size[0] - width * scale) / 2
    original_from_view = torch.tensor(
        [[scale, 0, crop + (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]], dtype=torch.float64
    )
    items = [_box_view(names[k], _arc_pose(k, views), size, original_size, original_from_view) for k in range(views)]
    return Scene(tuple(items), _exact_tracks(items), metric=metric, model="exact", provenance={"source": "box_scene"})


def _arc_pose(k: int, count: int) -> torch.Tensor:
    """Pose k of an arc of 40 degrees around the point (0, 0, 3); the middle of the arc looks along +z."""
    angle = np.deg2rad(-20 + 40 * k / max(count - 1, 1))
    c, s = np.cos(angle), np.sin(angle)
    rotation = torch.tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]], dtype=torch.float32)
    centre = torch.tensor([0, 0, 3.0]) + rotation @ torch.tensor([0.0, -0.1 * k, -3.0])
    return rigid(rotation, centre)


def _box_view(name, pose, size, original_size, original_from_view):
    height, width = size
    focal = 0.9 * original_size[0]
    principal = ((original_size[0] - 1) / 2 + 1.5, (original_size[1] - 1) / 2 - 1.0)
    intrinsics = torch.tensor([[focal, 0, principal[0]], [0, focal, principal[1]], [0, 0, 1.0]])
    camera = Camera(intrinsics, pose, *original_size)
    view_camera = camera.through(torch.linalg.inv(original_from_view), width, height)
    rays = pixel_grid(height, width, dtype=torch.float64)
    rays = torch.cat([rays, torch.ones(height, width, 1, dtype=torch.float64)], -1)
    rays = rays @ torch.linalg.inv(view_camera.intrinsics.double()).T @ pose[:3, :3].double().T
    # walls x + z = 4 and -x + z = 4, floor y = 1: the first one met
    normals = torch.tensor([[1, 0, 1], [-1, 0, 1], [0, 1, 0]], dtype=torch.float64)
    offsets = torch.tensor([4, 4, 1], dtype=torch.float64)
    distance = (offsets - normals @ pose[:3, 3].double()) / (rays @ normals.T)
    depth, wall = torch.where(distance > 0, distance, torch.inf).min(-1)  # rays have unit z in the camera
    point = pose[:3, 3].double() + depth[..., None] * rays
    checker = (point / 0.4).floor().long().sum(-1) % 2
    palette = torch.tensor([[200, 80, 60], [60, 120, 200], [90, 170, 90]], dtype=torch.uint8)
    image = (palette[wall].float() * (0.6 + 0.4 * checker[..., None])).to(torch.uint8)
    confidence = 1 + 4 / depth.float()
    view = View(name, image, original_from_view, original_size)
    return SceneView(view, camera, depth.float(), confidence)


def _exact_tracks(items: list[SceneView]) -> Tracks:
    """Every seventh pixel's point of the first view, observed wherever it projects inside a photo and is not hidden."""
    points = items[0].pointmap().reshape(-1, 3)[::7].double()
    colours = items[0].view.image.reshape(-1, 3)[::7]
    view, pixel, track = [], [], []
    for k, item in enumerate(items):
        local = transform_points(invert_rigid(item.camera.world_from_camera.double()), points)
        where = project(local, item.camera.intrinsics.double())
        limit = torch.tensor([item.camera.width, item.camera.height]) - 1
        inside = ((where >= 0) & (where <= limit)).all(-1) & (local[:, 2] > 0)
        index = inside.nonzero()[:, 0]
        view.append(torch.full_like(index, k))
        pixel.append(where[index])
        track.append(index)
    return Tracks(points.float(), colours, torch.cat(view), torch.cat(pixel).float(), torch.cat(track))
