"""Which way is up: photos carry it, since people hold cameras level."""

import torch
from jaxtyping import Float
from torch import Tensor

_SPREAD = 0.05  # least variance of the cameras' x axes across their plane for that plane to be known
_TRUST = 0.8  # cosine (37 degrees): further than that from the mean of the cameras' own up, the plane is no horizon


def estimate_up(world_from_camera: Float[Tensor, "n 4 4"]) -> Float[Tensor, "3"]:
    """Unit vector against gravity in the world, from poses of upright photos.

    A camera may look up or down, but its x axis stays level: up is the normal of the plane that the x axes span. Where
    they do not span one (all photos look the same way), it is the mean of the cameras' own up, -y.
    """
    mean_up = torch.nn.functional.normalize(-world_from_camera[:, :3, 1].double().mean(0), dim=0)
    x_axes = world_from_camera[:, :3, 0].double()
    variance, axes = torch.linalg.eigh(x_axes.T @ x_axes / len(x_axes))
    normal = axes[:, 0] * (axes[:, 0] @ mean_up).sign()
    if variance[1] > _SPREAD and normal @ mean_up > _TRUST:
        return normal.to(world_from_camera)
    return mean_up.to(world_from_camera)


def upright_from_world(world_from_camera: Float[Tensor, "n 4 4"]) -> Float[Tensor, "3 3"]:
    """Rotation into a frame with y up whose -z is the way the cameras look on average: glTF's frame."""
    up = estimate_up(world_from_camera)
    looks = world_from_camera[:, :3, 2]
    for candidate in (looks.mean(0), looks[0], world_from_camera[0, :3, 1]):  # cameras all around, or straight down
        level = candidate - (candidate @ up) * up
        if level.norm() > 0.1:
            break
    back = -torch.nn.functional.normalize(level, dim=0)
    return torch.stack([torch.linalg.cross(up, back), up, back])
