import pytest
import torch

from tests.models.two_planes import FOCAL, picture, pose, view
from unposed.geometry.transforms import fit_similarity, transform_points
from unposed.models.base import PairModel
from unposed.models.classic import Classic

POSES = [pose(0, (0, 0, 0)), pose(6, (0.7, 0.1, 0.2)), pose(-5, (-0.6, -0.2, 0.3))]


@pytest.fixture(scope="module")
def solved():
    pictures = [picture(p) for p in POSES]
    views = [view(f"{k}.jpg", image) for k, (image, _) in enumerate(pictures)]
    model = Classic()
    pairs = [(0, 1), (1, 0), (0, 2), (2, 1), (1, 1)]
    return views, [depth for _, depth in pictures], dict(model.decode(views, model.encode(views), pairs))


def test_is_a_pair_model():
    assert isinstance(Classic(), PairModel)


def test_every_asked_pair_is_answered_once_and_completely(solved):
    views, _, predictions = solved
    assert set(predictions) == {(0, 1), (1, 0), (0, 2), (2, 1), (1, 1)}
    for prediction in predictions.values():
        for points, confidence in (
            (prediction.points_i, prediction.confidence_i),
            (prediction.points_j, prediction.confidence_j),
        ):
            assert points.shape == (*views[0].size, 3)
            assert torch.isfinite(points).all()
            assert points.dtype == confidence.dtype == torch.float32
            assert (confidence >= 1).all()


@pytest.mark.parametrize("pair", [(0, 1), (1, 0), (2, 1)])
def test_both_pointmaps_are_the_scene_in_the_frame_of_the_first(solved, pair):
    _, depths, predictions = solved
    prediction = predictions[pair]
    found, truth = [], []
    for side, points, confidence in (
        (pair[0], prediction.points_i, prediction.confidence_i),
        (pair[1], prediction.points_j, prediction.confidence_j),
    ):
        believed = confidence > 3
        assert believed.float().mean() > 0.3
        depth = depths[side]
        y, x = torch.meshgrid(*(torch.arange(n) for n in depth.shape), indexing="ij")
        rays = torch.stack([(x - (depth.shape[1] - 1) / 2) / FOCAL, (y - (depth.shape[0] - 1) / 2) / FOCAL], -1)
        camera = torch.cat([rays, torch.ones_like(rays[..., :1])], -1) * depth[..., None]
        pair_i_from_side = (POSES[pair[0]] @ torch.linalg.inv(POSES[side])).float()
        found.append(points[believed])
        truth.append(transform_points(pair_i_from_side, camera)[believed])
    found, truth = torch.cat(found), torch.cat(truth)
    scale, rotation, translation = fit_similarity(found, truth)
    error = (scale * found @ rotation.T + translation - truth).norm(dim=-1)
    assert error.median() < 0.1
    assert torch.trace(rotation) > 2.99  # the frame is that of camera i, not one found by the fit
    assert translation.norm() < 0.3


def test_swapped_pair_has_swapped_matches(solved):
    _, _, predictions = solved
    one, other = predictions[0, 1].matches, predictions[1, 0].matches
    assert len(one.points_a) > 30
    assert torch.equal(one.points_a, other.points_b)
    assert torch.equal(one.points_b, other.points_a)


def test_a_keypoint_has_the_same_coordinates_in_every_pair(solved):
    _, _, predictions = solved
    first = {tuple(p) for p in predictions[0, 1].matches.points_a.tolist()}
    second = {tuple(p) for p in predictions[0, 2].matches.points_a.tolist()}
    assert len(first & second) > 10


def test_a_photo_with_itself_is_believed_nowhere(solved):
    prediction = solved[2][1, 1]
    assert (prediction.confidence_i == 1).all()
    assert torch.equal(prediction.points_i, prediction.points_j)


def test_duplicates_and_blank_photos_are_believed_nowhere():
    image, _ = picture(POSES[0])
    blank = torch.full_like(image, 128)
    views = [view("a.jpg", image), view("b.jpg", image.clone()), view("c.jpg", blank)]
    model = Classic()
    for _, prediction in model.decode(views, model.encode(views), [(0, 1), (0, 2), (2, 2)]):
        assert torch.isfinite(prediction.points_j).all()
        assert prediction.confidence_i.max() < 1.1
        assert prediction.confidence_j.max() < 1.1


def test_photos_of_different_shapes_make_a_pair():
    image_i, _ = picture(POSES[0])
    image_j, _ = picture(POSES[1])
    views = [view("a.jpg", image_i, exif_focal=FOCAL), view("b.jpg", image_j[:, 40:280].contiguous(), exif_focal=FOCAL)]
    model = Classic()
    ((_, prediction),) = model.decode(views, model.encode(views), [(0, 1)])
    assert prediction.points_j.shape == (240, 240, 3)
    assert (prediction.confidence_i > 2).float().mean() > 0.2


def test_an_exif_focal_settles_what_the_photos_leave_open():
    images = [picture(p)[0] for p in POSES[:2]]
    views = [view(f"{k}.jpg", image, exif_focal=FOCAL) for k, image in enumerate(images)]
    model = Classic()
    ((_, prediction),) = model.decode(views, model.encode(views), [(0, 1)])
    right, left = prediction.points_i[120, 319], prediction.points_i[120, 0]
    width = right[0] / right[2] - left[0] / left[2]
    assert 319 / width == pytest.approx(FOCAL, rel=0.05)
