"""Triangle meshes on the pixel grid of a pointmap."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def grid_faces(valid: Bool[Tensor, "height width"]) -> tuple[Int64[Tensor, "faces 3"], Int64[Tensor, "faces"]]:
    """Two triangles per pixel quad, both sides, without those that touch an invalid pixel (DUSt3R demo).

    Returns vertex indices (row-major pixels) and, per face, the pixel whose colour it takes: the quad's top-left one or
    its bottom-right one. Each triangle is stored twice with opposite winding, for viewers that cull back faces.
    """
    height, width = valid.shape
    index = torch.arange(height * width, device=valid.device).reshape(height, width)
    top_left, top_right = index[:-1, :-1].flatten(), index[:-1, 1:].flatten()
    bottom_left, bottom_right = index[1:, :-1].flatten(), index[1:, 1:].flatten()
    upper, lower = (top_left, top_right, bottom_left), (top_right, bottom_left, bottom_right)
    faces = torch.cat([torch.stack(f, -1) for f in (upper, upper[::-1], lower, lower[::-1])])
    colour = torch.cat([top_left, top_left, bottom_right, bottom_right])
    keep = valid.flatten()[faces].all(-1)
    return faces[keep], colour[keep]


def depth_edges(depth: Float[Tensor, "height width"], relative: float = 0.04) -> Bool[Tensor, "height width"]:
    """Pixels at which depth jumps by more than ``relative`` of itself within the 3x3 neighbourhood.

    A surface drawn across such a jump is a sheet that is not there. Pixels of unknown depth (0) make no jump.
    """
    known = depth > 0
    highest = torch.where(known, depth, -torch.inf)[None, None]
    lowest = torch.where(known, depth, torch.inf)[None, None]
    highest = torch.nn.functional.max_pool2d(highest, 3, stride=1, padding=1)[0, 0]
    lowest = -torch.nn.functional.max_pool2d(-lowest, 3, stride=1, padding=1)[0, 0]
    return known & (highest - lowest > relative * depth)
