import io

import numpy as np
import torch
import trimesh

from tests.factories import box_scene
from unposed.geometry.upright import upright_from_world
from unposed.io.gltf import glb_bytes, surface, write_glb
from unposed.io.mesh import depth_edges, grid_faces


def loaded(data: bytes) -> trimesh.Scene:
    return trimesh.load(io.BytesIO(data), file_type="glb")


def room():
    scene = box_scene()
    return scene, [item.view_camera for item in scene.views], [item.view.image for item in scene.views]


def placed(scene: trimesh.Scene, name: str) -> np.ndarray:
    """Vertices of a geometry in the file's frame."""
    node = next(n for n in scene.graph.nodes_geometry if scene.graph[n][1] == name)
    matrix, geometry = scene.graph[node]
    return trimesh.transform_points(scene.geometry[geometry].vertices, matrix)


def test_points_are_turned_y_up_and_keep_their_lengths(tmp_path):
    scene, cameras, images = room()
    cloud = scene.points(0.0)
    write_glb(tmp_path / "room.glb", cloud, cameras, images)
    read = loaded((tmp_path / "room.glb").read_bytes())
    rotation = upright_from_world(torch.stack([camera.world_from_camera for camera in cameras]))
    assert np.allclose(placed(read, "points"), (cloud.positions @ rotation.T).numpy(), atol=1e-4)
    assert np.array_equal(read.geometry["points"].colors[:, :3], cloud.colours.numpy())
    floor = placed(read, "points")[(cloud.positions[:, 1] > 0.999).numpy()]
    assert floor[:, 1].max() < placed(read, "camera_0_photo")[:, 1].min()  # the cameras are above the floor
    assert floor[:, 2].mean() < placed(read, "camera_0_photo")[:, 2].mean()  # and look along -z


def test_every_camera_shows_its_photo_the_right_way_round():
    scene, cameras, images = room()
    read = loaded(glb_bytes(scene.points(0.0), cameras, images, frustum_depth=0.5))
    rotation = upright_from_world(torch.stack([camera.world_from_camera for camera in cameras])).numpy()
    for k, camera in enumerate(cameras):
        photo = read.geometry[f"camera_{k}_photo"]
        texture = np.asarray(photo.visual.material.baseColorTexture.convert("RGB"))
        assert np.array_equal(texture, images[k].numpy())
        corners = placed(read, f"camera_{k}_photo") @ rotation  # back to the world
        local = (corners - camera.centre.numpy()) @ camera.world_from_camera[:3, :3].numpy()
        assert np.allclose(local[:, 2], 0.5, atol=1e-4)
        pixel = local[:, :2] / local[:, 2:] * camera.intrinsics[0, 0].item() + camera.intrinsics[:2, 2].numpy()
        uv = photo.visual.uv  # v counts from the picture's bottom
        expected = np.stack([uv[:, 0] * camera.width, (1 - uv[:, 1]) * camera.height], -1) - 0.5
        assert np.allclose(pixel, expected, atol=1e-2)


def test_surfaces_leave_out_depth_edges():
    scene, cameras, images = room()
    item = scene.views[0]
    depth = item.depth.clone()
    depth[:, 16:] *= 2  # a step
    valid = ~depth_edges(depth, relative=0.4)
    assert not valid[:, 15:17].any()
    assert valid[:, :14].all()
    mesh = surface(item.pointmap(), item.view.image, valid)
    assert len(mesh.faces) == 4 * 23 * (14 + 14)
    read = loaded(glb_bytes([mesh], cameras, images))
    assert len(read.geometry["surface_0"].faces) == len(mesh.faces)


def test_an_empty_cloud_still_shows_the_cameras():
    scene, cameras, images = room()
    assert len(loaded(glb_bytes(scene.points(1e9), cameras, images)).geometry) == 2 * len(cameras)


def test_unknown_depth_makes_no_edge():
    depth = torch.ones(5, 5)
    depth[2, 2] = 0
    assert not depth_edges(depth).any()


def test_grid_faces_cover_both_sides_of_every_quad():
    faces, colour = grid_faces(torch.ones(3, 4, dtype=torch.bool))
    assert faces.shape == (4 * 2 * 3, 3)
    assert colour.shape == (24,)
    assert len({tuple(face) for face in faces.tolist()}) == 24
