import torch

from tests.factories import box_scene
from unposed.io.preview import render_preview


def test_points_and_cameras_are_in_the_picture():
    scene = box_scene(size=(96, 128), original_size=(528, 384))
    cameras = list(scene.cameras.values())
    picture = render_preview(scene.points(0.0), cameras, width=320, height=200)
    assert picture.shape == (200, 320, 3)
    assert picture.dtype == torch.uint8
    painted = (picture < 250).any(-1)
    assert 0.2 < painted.float().mean() < 0.95
    blue = (picture.float() - torch.tensor([40.0, 90, 200])).abs().sum(-1) < 60
    assert blue.sum() > 50
    assert blue.nonzero()[:, 0].float().mean() > 80  # the cameras stand in front, so low in the picture


def test_nothing_but_cameras():
    scene = box_scene()
    picture = render_preview(scene.points(1e9), list(scene.cameras.values()), width=64, height=40)
    assert (picture < 250).any()


def test_highlighted_cameras_are_red():
    scene = box_scene(size=(96, 128), original_size=(528, 384))
    *others, last = scene.cameras.values()

    def red_and_blue(picture):
        return [
            int(((picture.float() - torch.tensor(colour)).abs().sum(-1) < 60).sum())
            for colour in ([220.0, 30, 30], [40.0, 90, 200])
        ]

    points = scene.points(0.0)
    before = red_and_blue(render_preview(points, [*others, last], width=320, height=200))
    after = red_and_blue(render_preview(points, others, width=320, height=200, highlighted=[last]))
    assert after[0] > before[0] + 15
    assert 0.5 * before[1] < after[1] < before[1]
