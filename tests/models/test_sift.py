import cv2
import numpy as np
import pytest
import torch

from unposed.models import affine_sift, sift


def texture(contrast=255.0):
    """A picture with structure at many scales."""
    rng = np.random.default_rng(0)
    layers = [cv2.GaussianBlur(rng.normal(size=(240, 320)), (0, 0), sigma) * sigma for sigma in (1.0, 2.0, 4.0, 8.0)]
    grey = cv2.normalize(sum(layers), None, 128 - contrast / 2, 127 + contrast / 2, cv2.NORM_MINMAX)
    return torch.from_numpy(grey.astype(np.uint8))[..., None].expand(-1, -1, 3).contiguous()


def warped(image, affine):
    moved = cv2.warpAffine(image.numpy(), affine, image.shape[1::-1], flags=cv2.INTER_AREA, borderValue=(128,) * 3)
    return torch.from_numpy(moved)


def right_matches(image, affine):
    """Number of matches of an image with its warped copy, and the share of them within 1.5 pixels of the truth."""
    a, b = sift.detect(image), sift.detect(warped(image, affine))
    found = sift.match(a, b)
    truth = a.points[found[:, 0]].numpy() @ affine[:, :2].T + affine[:, 2]
    right = np.linalg.norm(truth - b.points[found[:, 1]].numpy(), axis=1) < 1.5
    return int(right.sum()), float(right.mean())


def turned(degrees, squeeze=1.0):
    """Turn about the centre of the picture, then squeeze sideways."""
    affine = cv2.getRotationMatrix2D((160, 120), degrees, 1.0)
    affine[0] *= squeeze
    return affine


@pytest.mark.parametrize(("degrees", "squeeze", "enough"), [(0, 0.98, 300), (35, 1.0, 200), (20, 0.5, 60)])
def test_matches_survive_a_turn_and_a_slant(degrees, squeeze, enough):
    count, share = right_matches(texture(), turned(degrees, squeeze))
    assert count > enough
    assert share > 0.8


def test_affine_shapes_are_what_survives_a_slant(monkeypatch):
    adapted, _ = right_matches(texture(), turned(20, 0.45))
    monkeypatch.setattr(affine_sift, "SHAPE_ROUNDS", 0)
    round_ones, _ = right_matches(texture(), turned(20, 0.45))
    assert adapted > 1.2 * round_ones


def test_descriptors_are_unit_vectors_and_positions_lie_in_the_picture():
    found = sift.detect(texture())
    torch.testing.assert_close(found.descriptors.norm(dim=1), torch.ones(len(found.points)))
    assert (found.points >= 0).all()
    assert (found.points < torch.tensor([320, 240])).all()


def test_weak_texture_keeps_its_keypoints():
    assert len(sift.detect(texture(contrast=24)).points) > 300


def test_a_blank_picture_has_no_keypoints_and_no_matches():
    blank = sift.detect(torch.full((64, 64, 3), 90, dtype=torch.uint8))
    assert len(blank.points) == len(blank.descriptors) == 0
    assert len(sift.match(blank, sift.detect(texture()))) == 0
