"""A picture of two textured walls, one in front of the other, from any camera, with its exact depth."""

import cv2
import numpy as np
import torch
from torch import Tensor

from unposed.views import View

SIZE = (240, 320)
FOCAL = 300.0
BACK, FRONT = 5.0, 3.0


def pose(yaw_degrees: float, centre: tuple[float, float, float]) -> Tensor:
    """camera_from_world of a camera at ``centre`` turned about the vertical."""
    yaw = np.radians(yaw_degrees)
    rotation = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, -rotation @ np.array(centre)
    return torch.from_numpy(transform)


def picture(camera_from_world: Tensor) -> tuple[Tensor, Tensor]:
    """RGB pixels and z-depth."""
    height, width = SIZE
    world_from_camera = np.linalg.inv(camera_from_world.numpy())
    y, x = np.mgrid[:height, :width]
    rays = np.stack([(x - (width - 1) / 2) / FOCAL, (y - (height - 1) / 2) / FOCAL, np.ones((height, width))], -1)
    rays = rays @ world_from_camera[:3, :3].T
    eye = world_from_camera[:3, 3]
    depth, grey = np.zeros(SIZE), np.zeros(SIZE)
    for wall, seed in ((BACK, 0), (FRONT, 1)):
        along = (wall - eye[2]) / rays[..., 2]
        spot = eye[:2] + rays[..., :2] * along[..., None]
        hit = np.abs(spot).max(-1) < (0.7 if wall == FRONT else 20)
        texture = cv2.GaussianBlur(np.random.default_rng(seed).uniform(0, 255, (1024, 1024)), (0, 0), 2.0)
        texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX).astype(np.float32)
        pixels = (spot * 100 + 512).astype(np.float32)
        seen = cv2.remap(texture, pixels[..., 0], pixels[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        depth, grey = np.where(hit, along, depth), np.where(hit, seen, grey)
    image = torch.from_numpy(grey.astype(np.uint8))[..., None].expand(-1, -1, 3).contiguous()
    return image, torch.from_numpy(depth).float()


def view(name: str, image: Tensor, exif_focal: float | None = None) -> View:
    """An uncropped view of a picture."""
    height, width = image.shape[:2]
    return View(name, image, torch.eye(3, dtype=torch.float64), (width, height), exif_focal=exif_focal)
