import numpy as np
import torch
import trimesh

from tests.factories import box_scene
from unposed.io.ply import write_ply
from unposed.views import PointCloud


def test_points_and_colours_are_read_back_by_another_program(tmp_path):
    cloud = box_scene().points(0.0)
    write_ply(tmp_path / "room.ply", cloud)
    read = trimesh.load(tmp_path / "room.ply")
    assert np.array_equal(np.asarray(read.vertices, np.float32), cloud.positions.numpy())
    assert np.array_equal(read.colors[:, :3], cloud.colours.numpy())


def test_confidence_is_the_last_property(tmp_path):
    cloud = box_scene().points(0.0)
    write_ply(tmp_path / "room.ply", cloud)
    header, body = (tmp_path / "room.ply").read_bytes().split(b"end_header\n", 1)
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\n")
    assert header.rstrip().endswith(b"property float confidence")
    rows = np.frombuffer(body, np.uint8).reshape(len(cloud.confidence), -1)
    assert np.array_equal(rows[:, -4:].copy().view("<f4")[:, 0], cloud.confidence.numpy())


def test_an_empty_cloud_is_a_file_without_points(tmp_path):
    write_ply(
        tmp_path / "none.ply", PointCloud(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8), torch.zeros(0))
    )
    assert b"element vertex 0\n" in (tmp_path / "none.ply").read_bytes()
