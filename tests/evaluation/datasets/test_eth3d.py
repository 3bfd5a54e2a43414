import numpy as np
import pytest
import torch
import trimesh

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import eth3d
from unposed.evaluation.datasets.colmap_text import TextCamera
from unposed.geometry.cameras import pixel_grid

LENS = TextCamera(
    "THIN_PRISM_FISHEYE", 180, 120, [100.0, 101.0, 91.0, 60.5, 0.05, -0.02, 0.003, -0.002, 0.01, -0.004, 0.001, -0.001]
)
SIZE, INTRINSICS = (200, 140), (104.0, 105.0, 99.5, 69.5)  # undistorted; pixel (0, 0) is the centre


def room_through(lens, k):
    """Depth along z of every pixel of a distorted photo, by inverting the lens by COLMAP."""
    import PIL.Image  # noqa: F401
    import pycolmap

    camera = pycolmap.Camera(model=lens.model, width=lens.width, height=lens.height, params=lens.parameters)
    pixels = pixel_grid(lens.height, lens.width, dtype=torch.float64).reshape(-1, 2).numpy() + 0.5
    rays = torch.from_numpy(np.array(camera.cam_from_img(pixels)))[:, :2]
    pose = made.pose(k)
    directions = torch.cat([rays, torch.ones(len(rays), 1, dtype=torch.float64)], -1) @ pose[:3, :3].T
    normals, offsets = made.WALLS
    distance = (offsets - normals @ pose[:3, 3]) / (directions @ normals.T)
    depth = torch.where(distance > 0, distance, torch.inf).amin(-1)
    return depth.reshape(lens.height, lens.width).numpy().astype("<f4")


def write_scene(root):
    folder, undistorted, original = root / "pipes", [], []
    for k in range(2):
        name = f"DSC_000{k + 1}.JPG"
        made.write_picture(folder / "images" / "dslr_images_undistorted" / name, SIZE)
        camera_from_world = torch.linalg.inv(made.pose(k))
        numbers = [*made.quaternion(camera_from_world), *camera_from_world[:3, 3].tolist()]
        line = f"{k + 1} " + " ".join(f"{v:.12f}" for v in numbers)
        undistorted += [f"{line} 1 dslr_images_undistorted/{name}", ""]
        original += [f"{line} 7 dslr_images/{name}", "1.5 2.5 -1"]
        depth = room_through(LENS, k)
        depth[:5, :60] = np.inf
        path = folder / "ground_truth_depth" / "dslr_images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(depth.tobytes())
    calibration = folder / "dslr_calibration_undistorted"
    made.write_text(calibration / "cameras.txt", "1 PINHOLE 200 140 104 105 100 70")
    made.write_text(calibration / "images.txt", *undistorted)
    made.write_text(calibration / "points3D.txt", "")
    parameters = " ".join(str(value) for value in LENS.parameters)
    made.write_text(folder / "dslr_calibration_jpg" / "cameras.txt", f"7 {LENS.model} 180 120 {parameters}")
    made.write_text(folder / "dslr_calibration_jpg" / "images.txt", "# photos", *original)
    return folder


def test_depth_is_that_of_the_undistorted_photo(tmp_path):
    write_scene(tmp_path)
    (scene,) = eth3d.read(tmp_path)
    first, second = scene.frames
    assert first.photo.name == "DSC_0001.JPG"
    assert first.photo.size == SIZE
    torch.testing.assert_close(second.camera.world_from_camera.double(), made.pose(1), atol=1e-5, rtol=0)
    expected = made.camera(0, INTRINSICS, SIZE)
    torch.testing.assert_close(first.camera.intrinsics.double(), expected.intrinsics, atol=1e-4, rtol=0)
    depth, exact = first.depth(), made.depth(expected)
    assert depth.shape == (140, 200)
    assert (depth == 0).any()  # unknown, or outside the original photo
    error = (depth / exact - 1).abs()[depth > 0]
    assert error.median() < 0.003
    assert error.quantile(0.98) < 0.02
    made.assert_same_room(first, second, tolerance=0.03)


def test_the_lens_is_that_of_colmap():
    import PIL.Image  # noqa: F401
    import pycolmap

    rays = torch.rand(50, 2, dtype=torch.float64) - 0.5
    camera = pycolmap.Camera(model=LENS.model, width=LENS.width, height=LENS.height, params=LENS.parameters)
    points = torch.cat([rays, torch.ones(50, 1, dtype=torch.float64)], -1).numpy()
    expected = torch.from_numpy(np.array(camera.img_from_cam(points)))
    torch.testing.assert_close(eth3d.distort(LENS, rays), expected, atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="OPENCV"):
        eth3d.distort(LENS._replace(model="OPENCV"), rays)


def test_laser_scans_are_placed_by_the_project(tmp_path):
    folder = write_scene(tmp_path)
    assert eth3d.read(tmp_path)[0].points is None
    scans = folder / "dslr_scan_eval"
    scans.mkdir()
    trimesh.PointCloud(np.array([[1.0, 2, 3]])).export(scans / "scan1.ply")
    trimesh.PointCloud(np.array([[0.0, 0, 1]])).export(scans / "scan2.ply")
    meshes = [
        f'<MLMesh label="{name}" filename="{name}"><MLMatrix44>\n{made.words(matrix)}\n</MLMatrix44></MLMesh>'
        for name, matrix in (("scan1.ply", torch.eye(4)), ("scan2.ply", made.pose(3)))
    ]
    text = "<!DOCTYPE MeshLabDocument>\n<MeshLabProject><MeshGroup>" + "".join(meshes) + "</MeshGroup></MeshLabProject>"
    (scans / "scan_alignment.mlp").write_text(text)
    points = eth3d.read(tmp_path)[0].points()
    moved = made.pose(3)[:3, :3] @ torch.tensor([0.0, 0, 1], dtype=torch.float64) + made.pose(3)[:3, 3]
    torch.testing.assert_close(points.double(), torch.stack([torch.tensor([1.0, 2, 3]).double(), moved]))
    (scans / "scan2.ply").unlink()
    with pytest.raises(UserError, match=r"scan2\.ply"):
        eth3d.read(tmp_path)[0].points()


def test_what_is_missing_is_named(tmp_path):
    folder = write_scene(tmp_path)
    frame = eth3d.read(tmp_path)[0].frames[0]
    depth = folder / "ground_truth_depth" / "dslr_images" / "DSC_0001.JPG"
    depth.write_bytes(depth.read_bytes()[:-4])
    with pytest.raises(UserError, match="180 x 120 are due"):
        frame.depth()
    (folder / "dslr_calibration_jpg" / "cameras.txt").unlink()
    with pytest.raises(UserError, match=r"dslr_calibration_jpg/cameras\.txt"):
        eth3d.read(tmp_path)[0].frames[0].depth()
    with pytest.raises(UserError, match="courtyard"):
        eth3d.read(tmp_path, ["courtyard"])
