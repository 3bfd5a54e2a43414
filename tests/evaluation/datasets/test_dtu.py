import numpy as np
import pytest
import torch
import trimesh
from scipy.io import savemat

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import dtu

SIZE, INTRINSICS = (160, 120), (150.0, 151.0, 80.0, 61.0)


def write_scan(root):
    """Camera files of all three lengths: with two, three and four numbers about depth."""
    folder = root / "scan9"
    for k, range_of_depth in enumerate(("425 2.5", "425 2.5 192", "425 2.5 192 900")):
        camera = made.camera(k, INTRINSICS, SIZE)
        extrinsic, intrinsic = torch.linalg.inv(made.pose(k)), camera.intrinsics
        text = ["extrinsic", made.words(extrinsic), "", "intrinsic", made.words(intrinsic), "", range_of_depth]
        made.write_text(folder / "cams" / f"{k:08d}_cam.txt", *text)
        made.write_picture(folder / "images" / f"{k:08d}.jpg", SIZE)
        made.write_picture(folder / "binary_masks" / f"{k:08d}.png", SIZE, 255)
        depth = made.depth(camera).numpy().astype(np.float32)
        depth[0, :2] = (np.nan, -1)
        (folder / "depths").mkdir(exist_ok=True)
        np.save(folder / "depths" / f"{k:08d}.npy", depth)
    made.write_text(folder / "pair.txt", "2", "0", "2 1 50.5 2 40.5", "1", "1 0 50.5")
    return folder


def test_cameras_and_depth_agree(tmp_path):
    write_scan(tmp_path)
    (scan,) = dtu.read(tmp_path)
    assert not scan.metric  # millimetres
    for k, frame in enumerate(scan.frames):
        assert frame.photo.name == f"scan9/{k:08d}.jpg"
        torch.testing.assert_close(frame.camera.world_from_camera.double(), made.pose(k), atol=1e-6, rtol=0)
        torch.testing.assert_close(frame.camera.intrinsics.double(), made.camera(k, INTRINSICS, SIZE).intrinsics)
        assert frame.mask().min() == 1
    assert scan.frames[0].depth()[0, :2].tolist() == [0, 0]
    made.assert_same_room(scan.frames[0], scan.frames[2])
    assert dtu.read_neighbours(tmp_path / "scan9" / "pair.txt") == {0: [1, 2], 1: [0]}


def test_official_reference(tmp_path):
    masks = tmp_path / "SampleSet" / "MVS Data" / "ObsMask"
    masks.mkdir(parents=True)
    volume = np.zeros((4, 3, 2), np.uint8)
    volume[3, 1, 0] = 1
    savemat(
        masks / "ObsMask9_10.mat", {"ObsMask": volume, "BB": np.array([[100.0, 0, -50], [130, 20, -40]]), "Res": 10}
    )
    savemat(masks / "Plane9.mat", {"P": np.array([[0.0], [0], [1], [45]])})
    (tmp_path / "Points" / "stl").mkdir(parents=True)
    trimesh.PointCloud(np.array([[1.0, 2, -44], [1, 2, -46]])).export(tmp_path / "Points" / "stl" / "stl009_total.ply")
    reference = dtu.read_reference(tmp_path, 9)
    assert reference.above_plane(reference.points).tolist() == [True, False]
    # the voxel (3, 1, 0) is centred at (130, 10, -50) and 10 mm wide
    inside = [[130.0, 10, -50], [134, 6, -46], [136, 10, -50], [100, 0, -50], [-900, 10, -50]]
    assert reference.observed(torch.tensor(inside)).tolist() == [True, True, False, False, False]
    with pytest.raises(UserError, match=r"ObsMask1_10\.mat"):
        dtu.read_reference(tmp_path, 1)
    savemat(masks / "Plane9.mat", {"Q": 1})
    with pytest.raises(UserError, match="P are expected"):
        dtu.read_reference(tmp_path, 9)


def test_what_is_missing_is_named(tmp_path):
    folder = write_scan(tmp_path)
    made.write_text(folder / "cams" / "00000001_cam.txt", "extrinsic", "1 0 0 0")
    with pytest.raises(UserError, match=r"00000001_cam\.txt is no camera"):
        dtu.read(tmp_path)
    (folder / "cams" / "00000001_cam.txt").unlink()
    with pytest.raises(UserError, match=r"no .*00000001_cam\.txt"):
        dtu.read(tmp_path)
    with pytest.raises(UserError, match="scan1"):
        dtu.read(tmp_path, ["scan1"])
