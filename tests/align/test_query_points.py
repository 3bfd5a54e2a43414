import torch

from tests.factories import box_scene
from unposed.align.query_points import query_points
from unposed.geometry.cameras import map_pixels, project
from unposed.geometry.transforms import transform_points
from unposed.views import Matches

SCENE = box_scene(views=4)
QUERY, *OTHERS = SCENE.views


def _matches(skip: int = 0):
    """Matches of the query's pixels (every fifth) with exact sub-pixel places in the other views, in the pixels of the
    views; the first ``skip`` of each reference but the first are left out."""
    points = QUERY.pointmap().reshape(-1, 3)[::5].double()
    height, width = QUERY.view.size
    index = torch.arange(height * width)[::5]
    pixels = torch.stack([index % width, index // width], -1).float()
    found, kept = [], []
    for k, item in enumerate(OTHERS):
        camera = item.view_camera
        places = project(transform_points(camera.camera_from_world.double(), points), camera.intrinsics.double())
        rows = torch.arange(len(points))[skip if k else 0 :]
        found.append(Matches(pixels[rows], places[rows].float(), torch.ones(len(rows))))
        kept.append(rows)
    return points, found, kept


def _run(found, lifted):
    views, cameras = [item.view for item in OTHERS], [item.camera for item in OTHERS]
    return query_points(QUERY.view, views, cameras, found, lifted)


def test_pixels_that_several_references_see_are_triangulated() -> None:
    points, found, _ = _matches()
    result = _run(found, [torch.full((len(m.confidence), 3), torch.nan) for m in found])
    assert len(result.points) > 0.9 * len(points)
    assert len(result.feature.unique()) == len(result.feature)
    local = transform_points(QUERY.camera.camera_from_world.double(), result.points)
    error = (project(local, QUERY.camera.intrinsics.double()) - result.pixels).norm(dim=-1)
    assert float(error.max()) < 0.01


def test_a_reference_that_disagrees_is_left_out() -> None:
    _, found, _ = _matches()
    wrong = Matches(found[1].points_a, found[1].points_b + torch.tensor([0.0, 15.0]), found[1].confidence)
    result = _run([found[0], wrong, found[2]], [torch.full((len(m.confidence), 3), torch.nan) for m in found])
    local = transform_points(QUERY.camera.camera_from_world.double(), result.points)
    error = (project(local, QUERY.camera.intrinsics.double()) - result.pixels).norm(dim=-1)
    assert float(error.median()) < 0.01


def test_pixels_that_one_reference_sees_take_the_map_s_own_point() -> None:
    points, found, kept = _matches(skip=40)
    lifted = [points[rows] for rows in kept]
    lifted[0] = lifted[0].clone()
    lifted[0][3] = torch.nan  # the map knows nothing there
    lifted[0][50:] += 7.0  # and is wrong where two others see the pixel
    result = _run(found, lifted)
    assert len(result.points) == len(points) - 1
    assert sum(len(seen) for seen in result.seen) == sum(len(rows) for rows in kept)
    local = transform_points(QUERY.camera.camera_from_world.double(), result.points)
    error = (project(local, QUERY.camera.intrinsics.double()) - result.pixels).norm(dim=-1)
    assert float(error.max()) < 0.01
    seen = map_pixels(QUERY.view.original_from_view, found[0].points_a.double())
    assert torch.cdist(result.pixels, seen).amin(-1).max() < 1e-6


def test_no_match_gives_no_point() -> None:
    nothing = Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
    result = _run([nothing] * 3, [torch.zeros(0, 3)] * 3)
    assert len(result.points) == len(result.pixels) == len(result.feature) == 0
