"""Remove the layers that float in front of surfaces other views saw better (DUSt3R's clean-up of the point cloud)."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from unposed.geometry.cameras import project
from unposed.geometry.transforms import transform_points


def clean_pointcloud(
    intrinsics: Float[Tensor, "n 3 3"],
    camera_from_world: Float[Tensor, "n 4 4"],
    depth: Sequence[Float[Tensor, "height width"]],
    points: Sequence[Float[Tensor, "height width 3"]],
    confidence: Sequence[Float[Tensor, "height width"]],
    tolerance: float = 1e-3,
    bad_confidence: float = 0.0,
) -> list[Float[Tensor, "height width"]]:
    """Confidences, lowered to ``bad_confidence`` where a point (world) hides a surface that another view is surer of.

    A point of view i is bad if it projects into view j in front of j's depth there, by more than the relative
    ``tolerance``, and its confidence is less than j's at that pixel. Views are taken in order and see the confidences
    that earlier ones lowered.
    """
    cleaned = [values.clone() for values in confidence]
    for i in range(len(cleaned)):
        flat = points[i].reshape(-1, 3)
        own = cleaned[i].reshape(-1)
        for j in range(len(cleaned)):
            if i == j:
                continue
            height, width = depth[j].shape
            seen = transform_points(camera_from_world[j], flat)
            pixel = project(seen, intrinsics[j]).round()
            inside = (pixel >= 0).all(-1) & (pixel[:, 0] < width) & (pixel[:, 1] < height) & (seen[:, 2] > 0)
            x, y = pixel[inside].long().unbind(-1)
            in_front = seen[inside, 2] < (1 - tolerance) * depth[j][y, x]
            bad = inside.nonzero()[:, 0][in_front & (own[inside] < cleaned[j][y, x])]
            own[bad] = own[bad].clamp(max=bad_confidence)
        cleaned[i] = own.reshape(cleaned[i].shape)
    return cleaned
