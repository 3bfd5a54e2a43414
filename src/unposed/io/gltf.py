"""GLB for viewers (Blender, the browser): points or meshes with colour, and a small frustum with its photo per camera.

glTF is y-up and looks along -z, so the world is turned that way (:func:`upright_from_world`); lengths stay.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from unposed.geometry.upright import upright_from_world
from unposed.io.atomic import atomic_write
from unposed.io.frusta import EDGES, default_frustum_depth, frustum_corners
from unposed.io.mesh import grid_faces
from unposed.views import Camera, PointCloud

_THUMBNAIL = 192  # pixels: longer side of the photo in a frustum
_FRAME = (40, 90, 200, 255)


def glb_bytes(
    content: PointCloud | Sequence[trimesh.Trimesh],
    cameras: Sequence[Camera],
    images: Sequence[UInt8[Tensor, "height width 3"]],
    frustum_depth: float | None = None,
) -> bytes:
    """A GLB file of points or of meshes (:func:`surface`), with the cameras.

    Args:
        content: in the world frame.
        cameras: cameras of ``images``, at least one.
        images: what each frustum shows.
        frustum_depth: world length from a camera's centre to its picture; by default :func:`default_frustum_depth`.
    """
    if frustum_depth is None:
        frustum_depth = default_frustum_depth(cameras, content.positions if isinstance(content, PointCloud) else None)
    scene = trimesh.Scene()
    if isinstance(content, PointCloud):
        if len(content.positions):
            scene.add_geometry(
                trimesh.PointCloud(content.positions.numpy(), content.colours.numpy()), geom_name="points"
            )
    else:
        for k, mesh in enumerate(content):
            scene.add_geometry(mesh, geom_name=f"surface_{k}")
    for k, (camera, image) in enumerate(zip(cameras, images, strict=True)):
        picture, frame = _frustum(camera, image, frustum_depth)
        scene.add_geometry(picture, geom_name=f"camera_{k}_photo")
        scene.add_geometry(frame, geom_name=f"camera_{k}")
    upright = np.eye(4)
    upright[:3, :3] = upright_from_world(torch.stack([camera.world_from_camera for camera in cameras])).numpy()
    scene.apply_transform(upright)
    return scene.export(file_type="glb")


def write_glb(
    path: str | Path,
    content: PointCloud | Sequence[trimesh.Trimesh],
    cameras: Sequence[Camera],
    images: Sequence[UInt8[Tensor, "height width 3"]],
) -> None:
    """Write what :func:`glb_bytes` makes.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_bytes(glb_bytes(content, cameras, images))


def surface(
    pointmap: Float[Tensor, "height width 3"],
    image: UInt8[Tensor, "height width 3"],
    valid: Bool[Tensor, "height width"],
) -> trimesh.Trimesh:
    """Coloured mesh of a view's pixels in the world, seen from both sides, without faces at invalid pixels."""
    faces, _ = grid_faces(valid)
    used, faces = faces.unique(return_inverse=True)
    return trimesh.Trimesh(
        vertices=pointmap.reshape(-1, 3)[used].numpy(),
        faces=faces.reshape(-1, 3).numpy(),
        vertex_colors=image.reshape(-1, 3)[used].numpy(),
        process=False,
    )


def _frustum(camera: Camera, image: Tensor, depth: float) -> tuple[trimesh.Trimesh, trimesh.Trimesh]:
    """The photo on its image plane, and the pyramid's edges as thin bars."""
    corners = frustum_corners(camera, depth).numpy()
    picture = Image.fromarray(image.numpy())
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=picture, doubleSided=True, metallicFactor=0.0, roughnessFactor=1.0
    )
    corner_uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], float)
    photo = trimesh.Trimesh(
        vertices=corners[1:],
        faces=[[0, 2, 1], [0, 3, 2]],
        visual=trimesh.visual.TextureVisuals(uv=corner_uv, material=material),
        process=False,
    )
    bars = [trimesh.creation.cylinder(0.012 * depth, segment=corners[list(edge)], sections=4) for edge in EDGES]
    frame = trimesh.util.concatenate(bars)
    frame.visual = trimesh.visual.ColorVisuals(frame, vertex_colors=np.tile(_FRAME, (len(frame.vertices), 1)))
    return photo, frame
