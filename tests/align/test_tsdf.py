import torch

from tests.factories import box_scene
from unposed.align.tsdf import DepthFusion


def _fusion(depth: list[torch.Tensor] | None = None, truncation: float = 0.2) -> DepthFusion:
    scene = box_scene()
    cameras = [sv.view_camera for sv in scene.views]
    return DepthFusion(
        torch.stack([camera.intrinsics for camera in cameras]),
        torch.stack([camera.world_from_camera for camera in cameras]),
        depth or [sv.depth for sv in scene.views],
        [sv.confidence for sv in scene.views],
        truncation,
    )


def test_the_surface_is_at_distance_zero_and_what_is_in_front_of_it_positive() -> None:
    view = box_scene().views[1]
    points = view.pointmap().reshape(-1, 3)
    centre = view.view_camera.centre
    fusion = _fusion()
    assert fusion.distance(points)[0].abs().median() < 0.02
    nearer, seen = fusion.distance(centre + 0.9 * (points - centre))
    assert seen.all()
    assert (nearer > 0).float().mean() > 0.99
    _, seen = fusion.distance(centre + 2 * (points - centre))
    assert not seen.any()


def test_a_wrong_patch_of_depth_moves_towards_what_the_others_see() -> None:
    truth = [sv.depth for sv in box_scene().views]
    wrong = [depth.clone() for depth in truth]
    wrong[2][8:14, 10:20] += 0.15
    refined = _fusion(wrong).refined(2, torch.Generator().manual_seed(0), samples=200)
    patch = slice(8, 14), slice(10, 20)
    assert (refined[patch] - truth[2][patch]).abs().mean() < 0.75 * 0.15
    assert refined.shape == truth[2].shape


def test_a_pixel_that_no_view_sees_keeps_its_depth() -> None:
    depth = [torch.full_like(sv.depth, -1.0) for sv in box_scene().views]
    fusion = _fusion(depth)
    assert torch.equal(fusion.refined(0, samples=3), depth[0])
