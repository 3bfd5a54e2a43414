import numpy as np
import torch

from tests.models.two_planes import BACK, FOCAL, FRONT, picture, pose
from unposed.models.plane_sweep import RANGE_MARGIN, certainty, reduced, sweep, sweep_both


def swept(centre, yaw=0.0):
    j_from_i = pose(yaw, centre)
    image_i, depth_i = picture(torch.eye(4, dtype=torch.float64))
    image_j, depth_j = picture(j_from_i)
    points = torch.tensor([[x, y, z] for z in (FRONT, BACK) for x in (-0.5, 0.5) for y in (-0.5, 0.5)])
    return sweep_both(image_i, image_j, FOCAL, FOCAL, j_from_i, points), (depth_i, depth_j)


def test_depth_of_two_walls_from_the_side():
    found, truth = swept((0.5, 0.1, 0.0), yaw=4)
    for one, depth in zip(found, truth, strict=True):
        assert one.depth.shape == one.support.shape == depth.shape
        believed = one.support > 0.3
        assert believed.float().mean() > 0.6
        error = ((one.depth - depth).abs() / depth)[believed]
        assert error.median() < 0.02
        assert (error < 0.05).float().mean() > 0.95


def test_depth_of_a_camera_that_moves_forward():
    (one, _), (depth, _) = swept((0.1, 0.0, 0.6))
    believed = one.support > 0.3
    assert believed.float().mean() > 0.3
    assert ((one.depth - depth).abs() / depth)[believed].median() < 0.05


def test_what_the_other_view_does_not_see_is_complete_but_not_believed():
    (one, _), _ = swept((1.5, 0.0, 0.0))
    assert torch.isfinite(one.depth).all()
    assert (one.depth > 0).all()
    assert one.support[:, :60].max() < 0.3  # left of what the camera to the right can see


def test_pictures_that_do_not_belong_together_are_not_believed():
    generator = torch.Generator().manual_seed(0)
    image_i, image_j = (torch.randint(0, 255, (96, 128, 3), generator=generator, dtype=torch.uint8) for _ in range(2))
    points = torch.tensor([[0.0, 0.0, 3.0], [0.1, 0.0, 5.0], [0.0, 0.2, 8.0]])
    one, other = sweep_both(image_i, image_j, 120, 120, pose(0, (1.0, 0.0, 0.0)), points)
    assert one.support.mean() < 0.1
    assert other.support.mean() < 0.1


def test_depths_at_the_end_of_the_range_are_not_believed():
    i_from_i, j_from_i = pose(0, (0.0, 0.0, 0.0)), pose(0, (0.5, 0.0, 0.0))
    sides = []
    for camera in (i_from_i, j_from_i):
        image, _ = picture(camera)
        height, width = image.shape[:2]
        sides.append(reduced(image, np.array([[FOCAL, 0, (width - 1) / 2], [0, FOCAL, (height - 1) / 2], [0, 0, 1]])))
    farthest, nearest = RANGE_MARGIN[0] / BACK, RANGE_MARGIN[1] / BACK  # FRONT is nearer than that
    swept = sweep(sides[0], [(sides[1], j_from_i.numpy())], np.full(3, BACK))
    at_end = (swept.inverse_depth < farthest + 1e-6) | (swept.inverse_depth > nearest - 1e-6)
    assert at_end.any()
    assert certainty(swept)[at_end].max() == 0
    assert certainty(swept)[~at_end].mean() > 0.4
