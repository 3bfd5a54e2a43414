"""Pinhole cameras and pointmaps: pixels, rays, projection. Pixel (0, 0) is the centre of the top-left pixel."""

import torch
from jaxtyping import Float
from torch import Tensor


def intrinsics_matrix(
    focal: Float[Tensor, "*batch"] | float, principal_point: Float[Tensor, "*batch 2"]
) -> Float[Tensor, "*batch 3 3"]:
    """3x3 matrix K of a camera with square pixels; focal and principal point in pixels."""
    k = torch.zeros(*principal_point.shape[:-1], 3, 3, dtype=principal_point.dtype, device=principal_point.device)
    k[..., 0, 0] = focal
    k[..., 1, 1] = focal
    k[..., :2, 2] = principal_point
    k[..., 2, 2] = 1
    return k


def pixel_grid(
    height: int, width: int, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "height width 2"]:
    """Coordinates (x, y) of every pixel centre."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype), torch.arange(width, device=device, dtype=dtype), indexing="ij"
    )
    return torch.stack([x, y], -1)


def backproject(
    pixels: Float[Tensor, "*batch n 2"], depth: Float[Tensor, "*batch n"], intrinsics: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch n 3"]:
    """Camera-frame points at the given z-depths behind pixels."""
    xy = (pixels - intrinsics[..., None, :2, 2]) / intrinsics.diagonal(dim1=-2, dim2=-1)[..., None, :2]
    return torch.cat([xy, torch.ones_like(xy[..., :1])], -1) * depth[..., None]


def pointmap_from_depth(
    depth: Float[Tensor, "*batch height width"], intrinsics: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch height width 3"]:
    """Camera-frame point of every pixel of a z-depth map."""
    height, width = depth.shape[-2:]
    pixels = pixel_grid(height, width, depth.device, depth.dtype).reshape(-1, 2).expand(*depth.shape[:-2], -1, 2)
    return backproject(pixels, depth.flatten(-2), intrinsics).reshape(*depth.shape, 3)


def project(
    points: Float[Tensor, "*batch n 3"], intrinsics: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch n 2"]:
    """Pixels of camera-frame points; points at or behind the camera plane give large finite or mirrored pixels."""
    z = points[..., 2:]
    z = torch.where(z.abs() < 1e-9, torch.full_like(z, 1e-9), z)
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[..., None, :2]
    return points[..., :2] / z * focal + intrinsics[..., None, :2, 2]


def map_pixels(affine: Float[Tensor, "3 3"], pixels: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
    """Apply an affine pixel map (last row 0 0 1), e.g. ``original_from_view``, to pixel coordinates."""
    return pixels @ affine[:2, :2].T.to(pixels) + affine[:2, 2].to(pixels)
