import numpy as np
import pytest
import torch
from scipy.io import savemat

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import kapture
from unposed.geometry.cameras import project
from unposed.geometry.transforms import transform_points

SIZE = (120, 90)
POINTS = torch.tensor([[0.0, 0.2, 3.0], [0.3, -0.1, 3.2], [-0.2, 0.1, 2.8]], dtype=torch.float64)
LENS = (110.0, 60.0, 45.0)  # f, cx, cy of SIMPLE_RADIAL; its corner is the origin
OURS = (110.0, 110.0, 59.5, 44.5)


def numbers(k) -> str:
    camera_from_world = torch.linalg.inv(made.pose(k))
    values = [*made.quaternion(camera_from_world), *camera_from_world[:3, 3].tolist()]
    return [f"{value:.12f}" for value in values]


def write_model(folder, names):
    """A COLMAP text model whose photos observe some of the points; observations without a point have the id -1."""
    lines = []
    for k, name in enumerate(names):
        camera = made.camera(k, OURS, SIZE)
        pixels = project(transform_points(camera.camera_from_world, POINTS), camera.intrinsics) + 0.5
        observed = [(pixels[0], 12), (torch.zeros(2), -1), (pixels[2], 30), (pixels[1], 99)]  # 99 is no point
        lines.append(f"{k + 1} {' '.join(numbers(k))} 4 {name}")
        lines.append(" ".join(f"{x:.9f} {y:.9f} {identity}" for (x, y), identity in observed) if k != 1 else "")
    made.write_text(folder / "cameras.txt", "# cameras", f"4 SIMPLE_RADIAL 120 90 {LENS[0]} {LENS[1]} {LENS[2]} 0.02")
    made.write_text(folder / "images.txt", "# photos", *lines)
    rows = [(30, POINTS[2]), (12, POINTS[0]), (13, POINTS[1])]  # in no order
    text = [f"{identity} {' '.join(str(float(v)) for v in point)} 1 2 3 0.5 1 0 2 1" for identity, point in rows]
    made.write_text(folder / "points3D.txt", *text)


def write_kapture(folder, names, posed=False):
    sensors = folder / "sensors"
    made.write_text(
        sensors / "sensors.txt", "# kapture format: 1.1", "cam, , camera, SIMPLE_RADIAL, 120, 90, 110, 60, 45, 0.1"
    )
    made.write_text(sensors / "records_camera.txt", *(f"{k}, cam, {name}" for k, name in enumerate(names)))
    if posed:
        lines = [f"{k}, cam, {', '.join(numbers(k))}" for k in range(len(names))]
        made.write_text(sensors / "trajectories.txt", *lines)


def check_landmarks(frame):
    """Points seen where the photo's own camera sees them."""
    pixels, points = frame.landmarks()
    torch.testing.assert_close(points.double(), POINTS[[0, 2]], atol=1e-6, rtol=0)
    local = transform_points(frame.camera.camera_from_world, points)
    torch.testing.assert_close(project(local, frame.camera.intrinsics), pixels, atol=1e-3, rtol=0)


def test_cambridge_has_sparse_points_and_retrieved_photos(tmp_path):
    names = ["seq1/frame00001.png", "seq1/frame00002.png"]
    write_model(tmp_path / "mapping" / "ShopFacade" / "colmap" / "reconstruction", names)
    for name in names:
        made.write_picture(tmp_path / "ShopFacade" / name, SIZE)
    write_kapture(tmp_path / "kapture" / "ShopFacade" / "query", ["seq3/frame00001.png"], posed=True)
    pairs = [f"seq3/frame00001.png, {names[0]}, 0.2", f"seq3/frame00001.png, {names[1]}, 0.9"]
    made.write_text(tmp_path / "ShopFacade" / "pairsfile" / "query" / "APGeM-LM18_top50.txt", "# pairs", *pairs)
    (place,) = kapture.read_cambridge(tmp_path)
    assert [frame.photo.name for frame in place.references] == names
    assert place.references[0].photo.size == SIZE
    torch.testing.assert_close(place.references[1].camera.world_from_camera.double(), made.pose(1), atol=1e-6, rtol=0)
    expected = made.camera(0, OURS, SIZE).intrinsics
    torch.testing.assert_close(place.references[0].camera.intrinsics.double(), expected)
    check_landmarks(place.references[0])
    assert len(place.references[1].landmarks().points) == 0
    (query,) = place.queries
    torch.testing.assert_close(query.camera.world_from_camera.double(), made.pose(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(query.camera.intrinsics.double(), expected)
    assert place.retrieved == {"seq3/frame00001.png": (names[1], names[0])}  # best first


def test_aachen_is_told_day_from_night_and_hides_poses(tmp_path):
    write_model(tmp_path / "mapping" / "colmap" / "reconstruction", ["db/1.jpg", "db/2.jpg"])
    write_kapture(tmp_path / "kapture" / "query", ["query/day/a.jpg", "query/night/b.jpg"])
    made.write_picture(tmp_path / "images" / "query" / "night" / "b.jpg", SIZE)
    day, night = kapture.read_aachen(tmp_path)
    assert [frame.photo.name for frame in day.queries] == ["query/day/a.jpg"]
    assert night.queries[0].photo.size == SIZE
    assert night.queries[0].camera is None
    assert night.queries[0].intrinsics.tolist() == [[110, 0, 59.5], [0, 110, 44.5], [0, 0, 1]]
    assert night.retrieved is None
    check_landmarks(day.references[0])
    assert [part.name for part in kapture.read_aachen(tmp_path, ["night"])] == ["night"]
    (tmp_path / "mapping" / "colmap" / "reconstruction" / "points3D.txt").unlink()
    with pytest.raises(UserError, match=r"points3D\.txt"):
        kapture.read_aachen(tmp_path)[0].references[0].landmarks()


def test_inloc_points_are_brought_from_the_scan_to_the_building(tmp_path):
    name = "DUC1/024/DUC_cutout_024_0_0.jpg"
    write_kapture(tmp_path / "mapping", [name])
    write_kapture(tmp_path / "query", ["iphone7/IMG_0731.JPG"])
    made.write_picture(tmp_path / "mapping" / "sensors" / "records_data" / name, SIZE)
    scanned = np.full((90, 120, 3), np.nan)
    scanned[7, 5] = (1.0, 2.0, 3.0)
    savemat(tmp_path / "mapping" / "sensors" / "records_data" / f"{name}.mat", {"XYZcut": scanned})
    alignment = tmp_path / "mapping" / "DUC1_alignment" / "all_transformations.txt"
    before, after = made.words(torch.eye(4)), made.words(made.pose(2))
    made.write_text(
        alignment, "023", "Before:", before, "024", "Before general icp:", before, "After general icp:", after
    )
    pairs = tmp_path / "pairsfile" / "query" / "pairs.txt"
    made.write_text(pairs, f"query/iphone7/IMG_0731.JPG database/cutouts/{name}")
    (inloc,) = kapture.read_inloc(tmp_path)
    pixels, points = inloc.references[0].landmarks()
    assert pixels.tolist() == [[5, 7]]
    moved = transform_points(made.pose(2), torch.tensor([[1.0, 2, 3]], dtype=torch.float64))
    torch.testing.assert_close(points.double(), moved, atol=1e-5, rtol=0)
    assert inloc.retrieved == {"iphone7/IMG_0731.JPG": (name,)}
    assert inloc.queries[0].intrinsics is not None
    assert kapture.read_inloc(tmp_path, ["DUC2"])[0].references == ()
    made.write_text(alignment, "023")
    with pytest.raises(UserError, match="no scan 024"):
        kapture.read_inloc(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cameras\.txt"):
        kapture.read_aachen(tmp_path)
    write_model(tmp_path / "mapping" / "colmap" / "reconstruction", ["db/1.jpg"])
    with pytest.raises(UserError, match="sensors"):
        kapture.read_aachen(tmp_path)
    write_kapture(tmp_path / "kapture" / "query", ["query/day/a.jpg"])
    made.write_text(tmp_path / "kapture" / "query" / "sensors" / "records_camera.txt", "0, phone, a.jpg")
    with pytest.raises(UserError, match="no camera phone"):
        kapture.read_aachen(tmp_path)
    made.write_text(tmp_path / "pairs.txt", "a.jpg")
    with pytest.raises(UserError, match="no pair of photos"):
        kapture.read_pair_list(tmp_path / "pairs.txt")
