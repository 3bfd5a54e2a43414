"""Photometric changes: bounded, repeatable, one by one, and none at strength zero."""

import torch

from unposed.synth import augment, render_scenes


def _images() -> torch.Tensor:
    return render_scenes(1, 3, 2, 37, 50).images


def test_changes_every_image_on_its_own_and_repeats() -> None:
    same = _images()[:1, :1].expand(3, 2, -1, -1, -1)
    first = augment(same, torch.Generator().manual_seed(1))
    assert first.shape == same.shape
    assert first.min() >= 0
    assert first.max() <= 1
    assert (first[0, 0] - first[1, 1]).abs().mean() > 0.005
    assert torch.equal(first, augment(same, torch.Generator().manual_seed(1)))


def test_zero_strength_changes_nothing() -> None:
    images = _images()
    assert torch.allclose(augment(images, torch.Generator().manual_seed(1), strength=0), images, atol=2e-4)


def test_structure_stays_in_place() -> None:
    images = _images().flatten(0, 1)
    changed = augment(images, torch.Generator().manual_seed(2))
    for before, after in zip(images.mean(1), changed.mean(1), strict=True):
        assert torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1] > 0.8
