import torch

from tests.geometry.strategies import normal
from unposed.geometry.cameras import project
from unposed.geometry.recentring import recentred_crop
from unposed.geometry.transforms import rigid, transform_points
from unposed.geometry.triangulation import triangulate_with_neighbours

K = torch.tensor([[100.0, 0, 32], [0, 110, 24], [0, 0, 1]])


def _exact(height: int = 6, width: int = 8, neighbours: int = 3) -> tuple:
    """Intrinsics, poses, exact dense matches of view 0, and the points that they show."""
    poses = [torch.eye(4)] + [
        rigid(torch.eye(3), torch.tensor([0.3 * k, -0.2, 0.05 * k])) for k in range(1, neighbours + 1)
    ]
    points = normal(0, height, width, 3).float() + torch.tensor([0.0, 0, 6])
    seen = [project(transform_points(pose, points), K) for pose in poses]
    matches = torch.stack([torch.cat([seen[0], other, torch.ones(height, width, 1)], -1) for other in seen[1:]])
    return K.expand(1, neighbours + 1, 3, 3), torch.stack(poses)[None], matches[None], points


def test_exact_matches_give_the_points() -> None:
    intrinsics, poses, matches, points = _exact()
    found, depth, confidence = triangulate_with_neighbours(intrinsics, poses, matches)
    torch.testing.assert_close(found[0], points, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(depth[0], points[..., 2], atol=1e-4, rtol=1e-4)
    assert bool((confidence == 3).all())


def test_pixels_that_few_neighbours_match_are_unknown_and_do_not_spoil_the_others() -> None:
    intrinsics, poses, matches, points = _exact(neighbours=4)
    matches[0, :3, 0, 0] = torch.nan  # one neighbour of four is left: not more than 30 %
    matches[0, :2, 1, 1] = torch.nan
    found, depth, confidence = triangulate_with_neighbours(intrinsics, poses, matches)
    assert bool(found[0, 0, 0].isnan().all())
    assert bool(depth[0, 0, 0].isnan())
    assert float(confidence[0, 0, 0]) == 0
    torch.testing.assert_close(found[0, 1, 1], points[1, 1], atol=1e-4, rtol=1e-4)


def test_a_recentred_crop_is_the_same_scene_seen_by_a_turned_camera() -> None:
    crop = recentred_crop(K, (40, 5, 60, 20))
    points = normal(1, 20, 3).double() * 0.2 + torch.tensor([0.2, -0.1, 3.0], dtype=torch.float64)
    in_crop = project(points @ crop.photo_from_crop, crop.intrinsics)  # rows times R: the inverse rotation
    lifted = torch.cat([in_crop, torch.ones(20, 1, dtype=torch.float64)], 1) @ crop.homography.T
    torch.testing.assert_close(lifted[:, :2] / lifted[:, 2:], project(points, K.double()))
    assert crop.intrinsics[:2, 2].tolist() == [10, 7.5]
    assert crop.size == (20, 15)
