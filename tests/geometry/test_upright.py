import torch

from tests.factories import box_scene
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import rigid
from unposed.geometry.upright import estimate_up, upright_from_world


def _ring(pitch: float, count: int = 8) -> torch.Tensor:
    """Cameras around the y axis (which points down), all looking down by ``pitch`` radians."""
    poses = []
    for k in range(count):
        turn = matrix_from_axis_angle(torch.tensor([0, k * 6.283 / count, 0]))
        down = matrix_from_axis_angle(torch.tensor([-pitch, 0, 0]))
        poses.append(rigid(turn @ down, turn @ torch.tensor([0, 0, -3.0])))
    return torch.stack(poses)


def test_level_x_axes_tell_up_however_far_the_cameras_look_down():
    up = estimate_up(_ring(0.4)[:3])  # three on one side: the mean of their -y leans
    assert torch.allclose(up, torch.tensor([0, -1.0, 0]), atol=1e-3)


def test_photos_that_look_one_way_give_their_own_up():
    pose = box_scene(views=1).views[0].camera.world_from_camera[None].repeat(3, 1, 1)
    assert torch.allclose(estimate_up(pose), -pose[0, :3, 1])


def test_upright_frame_is_a_rotation_with_y_up_and_the_view_along_minus_z():
    for poses in (_ring(0.3), _ring(0.3)[:2], torch.eye(4)[None], _ring(1.5707)[:1]):
        rotation = upright_from_world(poses)
        assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-5)
        assert torch.linalg.det(rotation) > 0.99
        assert torch.allclose(rotation @ estimate_up(poses), torch.tensor([0, 1.0, 0]), atol=1e-5)
    rotation = upright_from_world(_ring(0.3)[:2])
    looks = rotation @ _ring(0.3)[:2, :3, 2].mean(0)
    assert looks[2] < -0.8
