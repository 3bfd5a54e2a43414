"""What of a scene stands in the 3D view: points by confidence, and a frustum with its photo per camera."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import viser
from torch import Tensor

from unposed.geometry.rotations import quaternion_from_matrix
from unposed.geometry.upright import upright_from_world
from unposed.io.depth_files import depth_colours
from unposed.io.frusta import default_frustum_depth
from unposed.io.preview import overview_camera
from unposed.scene import Scene, SceneView
from unposed.views import Camera

STEP = 5
"""Percent of the points that one step of the confidence slider shows or hides."""
_MAX_POINTS = 800_000
_EXTENT = 4.0  # the scene is shown about so large, whatever its units, as near planes and mouse speeds expect
_THUMBNAIL = 320  # pixels: longer side of the photo in a frustum
_FRAME_COLOUR = (40, 90, 200)
_PICKED_COLOUR = (235, 120, 20)


@dataclass
class Display:
    """Handles of one component in the 3D view, shown upright and at a common size."""

    scene: Scene
    """The component as it is; what is shown is a turned and scaled copy."""
    shown: Scene
    overview: Camera
    clouds: list[viser.PointCloudHandle]
    """Points in steps of ``STEP`` percent, least confident first."""
    thresholds: list[float]
    """Least confidence of each step."""
    frusta: dict[str, viser.CameraFrustumHandle]
    count: int
    """Number of points over all steps."""

    def hide_least_confident(self, percent: int) -> None:
        """Show only the points above that percentile of confidence."""
        for k, cloud in enumerate(self.clouds):
            cloud.visible = k * STEP >= percent

    def threshold(self, percent: int) -> float:
        """Confidence below which points are hidden at that percentile."""
        return self.thresholds[min(percent // STEP, len(self.thresholds) - 1)] if self.thresholds else 0.0

    def show_pictures(self, depth: bool) -> None:
        """Photos or depth maps in the frusta."""
        for item in self.shown.views:
            self.frusta[item.view.name].image = thumbnail(depth_picture(item) if depth else item.view.image.numpy())

    def mark(self, name: str | None, hidden: bool = False) -> None:
        """Colour the frustum of one view; ``hidden`` takes it away, so that one can look from where it stands."""
        for other, frustum in self.frusta.items():
            frustum.color = _PICKED_COLOUR if other == name else _FRAME_COLOUR
            frustum.visible = not (hidden and other == name)

    def remove(self) -> None:
        """Take everything out of the 3D view."""
        for handle in (*self.clouds, *self.frusta.values()):
            handle.remove()


def display(server: viser.ViserServer, scene: Scene) -> Display:
    """Put a component into the 3D view."""
    shown = _for_display(scene)
    cloud = shown.points(-np.inf, _MAX_POINTS)
    order = cloud.confidence.argsort()
    clouds, thresholds = [], []
    for k, chosen in enumerate(order.tensor_split(100 // STEP)):
        if len(chosen) == 0:
            continue
        thresholds.append(float(cloud.confidence[chosen[0]]))
        clouds.append(
            server.scene.add_point_cloud(
                f"/points/{k}",
                cloud.positions[chosen].numpy(),
                cloud.colours[chosen].numpy(),
                point_size=_pixel_footprint(shown, len(order)),
                point_shape="rounded",
                point_shading="flat",
                precision="float32",
            )
        )
    size = default_frustum_depth([item.camera for item in shown.views], cloud.positions)
    frusta = {item.view.name: _add_frustum(server, item, size) for item in shown.views}
    overview = overview_camera(cloud.positions, [item.camera for item in shown.views], 960, 600)
    return Display(scene, shown, overview, clouds, thresholds, frusta, len(order))


def wxyz(camera: Camera) -> np.ndarray:
    """Orientation as viser takes it (OpenCV axes, as ours)."""
    return quaternion_from_matrix(camera.world_from_camera[:3, :3].double()).numpy()


def depth_picture(item: SceneView) -> np.ndarray:
    """Inverse depth in false colours (near is red), unknown depth black."""
    return depth_colours(item.depth).numpy()


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """The picture, at most 320 pixels long."""
    factor = _THUMBNAIL / max(picture.shape[:2])
    if factor >= 1:
        return picture
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def _for_display(scene: Scene) -> Scene:
    """Turned y up, points around the origin, of a common size."""
    poses = torch.stack([item.camera.world_from_camera for item in scene.views])
    rotation = upright_from_world(poses)
    turned = _sample(scene) @ rotation.T
    low, high = turned.quantile(0.05, dim=0), turned.quantile(0.95, dim=0)
    scale = _EXTENT / max(float((high - low).max()), 1e-12)
    return scene.transformed(scale, rotation, -scale * (low + high) / 2)


def _sample(scene: Scene) -> Tensor:
    """Some confident points and the camera centres."""
    centres = torch.stack([item.camera.centre for item in scene.views])
    return torch.cat([scene.points(max_points=20_000).positions, centres])


def _pixel_footprint(shown: Scene, count: int) -> float:
    """Point size at which neighbouring pixels of a view just touch, when ``count`` of all points are shown."""
    footprints, total = [], 0
    for item in shown.views:
        known = item.depth[item.depth > 0]
        total += len(known)
        if len(known):
            footprints.append(float(known.median() / item.view_camera.intrinsics[0, 0]))
    return float(np.median(footprints)) * max(total / max(count, 1), 1.0) ** 0.5 if footprints else 0.01


def _add_frustum(server: viser.ViserServer, item: SceneView, size: float) -> viser.CameraFrustumHandle:
    camera = item.camera
    return server.scene.add_camera_frustum(
        f"/cameras/{item.view.name}",
        fov=2 * float(torch.atan(camera.height / 2 / camera.intrinsics[1, 1])),
        aspect=camera.width / camera.height,
        scale=size,
        color=_FRAME_COLOUR,
        thickness=1.5,
        thickness_units="screen",
        image=thumbnail(item.view.image.numpy()),
        wxyz=wxyz(camera),
        position=camera.centre.numpy(),
    )
