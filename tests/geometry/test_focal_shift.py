import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unposed.geometry.focal_shift import recover_focal_shift, recover_shift, sampled
from unposed.geometry.view_plane import spans, view_plane


def scene(height, width, focals, shifts, seed=0):
    """Pointmaps of smooth surfaces, shifted back along z by ``shifts``."""
    stream = torch.Generator().manual_seed(seed)
    coarse = torch.rand(len(focals), 1, 5, 6, generator=stream)
    depth = 2 + 3 * torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[:, 0]
    rays = view_plane(height, width, width / height) / torch.tensor(focals)[:, None, None, None]
    points = torch.cat([rays * depth[..., None], depth[..., None]], -1)
    points[..., 2] -= torch.tensor(shifts)[:, None, None]
    return points


@settings(max_examples=25, deadline=None)
@given(st.floats(0.5, 4), st.floats(-2, 1.5), st.sampled_from([(48, 64), (90, 50), (20, 30), (200, 260)]))
def test_exact_pointmaps_give_the_true_focal_and_shift(focal, shift, size):
    found = recover_focal_shift(scene(*size, [focal], [shift]))
    assert float(found.focal) == pytest.approx(focal, rel=1e-3)
    assert float(found.shift) == pytest.approx(shift, abs=1e-3)


def test_a_batch_is_solved_as_each_alone_and_masks_hide():
    points = scene(60, 80, [0.8, 1.5, 2.5], [0.5, -0.4, 1.0])
    mask = torch.rand(3, 60, 80, generator=torch.Generator().manual_seed(1)) > 0.3
    points[~mask] = torch.tensor([torch.nan, torch.inf, -5.0])
    together = recover_focal_shift(points, mask)
    assert torch.allclose(together.focal, torch.tensor([0.8, 1.5, 2.5]), rtol=1e-3)
    assert torch.allclose(together.shift, torch.tensor([0.5, -0.4, 1.0]), atol=1e-3)
    for k in range(3):
        alone = recover_focal_shift(points[k : k + 1], mask[k : k + 1])
        assert torch.allclose(alone.shift, together.shift[k], atol=1e-6)


def test_the_minimum_is_reached_under_noise():
    points = scene(64, 64, [1.2], [0.7])
    points *= 1 + 0.05 * torch.randn(points.shape, generator=torch.Generator().manual_seed(2))
    found = recover_focal_shift(points)
    uv, xyz = view_plane(64, 64, 1.0).double(), points[0].double()

    def energy(shift):
        q = xyz[..., :2] / (xyz[..., 2:] + shift)
        focal = (q * uv).sum() / q.square().sum()
        return float((focal * q - uv).square().sum())

    best = energy(float(found.shift))
    assert all(energy(float(found.shift) + step) >= best for step in (-0.1, -1e-2, -1e-3, 1e-3, 1e-2, 0.1))


def test_a_known_camera_leaves_only_the_shift():
    points = scene(50, 70, [1.3], [0.6])
    rays = view_plane(50, 70, 70 / 50)[None] / 1.3
    assert float(recover_shift(points, rays)) == pytest.approx(0.6, abs=1e-4)
    off_centre = rays + torch.tensor([0.1, -0.05])
    moved = points.clone()
    moved[..., :2] = off_centre * (points[..., 2:] + 0.6)
    assert float(recover_shift(moved, off_centre)) == pytest.approx(0.6, abs=1e-4)


@pytest.mark.parametrize("kept", [0, 1])
def test_too_few_points_give_the_neutral_answer(kept):
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 0, :kept] = True
    found = recover_focal_shift(scene(64, 64, [1.0], [0.5]), mask)
    assert (float(found.focal), float(found.shift)) == (1, 0)


def test_sampling_is_nearest_at_any_size():
    values = torch.arange(100)[None, :, None].expand(1, 100, 7)
    assert sampled(values).shape == (1, 64, 64)
    assert sampled(values)[0, :, 0].tolist() == [i * 100 // 64 for i in range(64)]


def test_the_view_plane_spans_the_diagonal():
    assert sum(span**2 for span in spans(1.7)) == pytest.approx(1)
    plane = view_plane(4, 6, 1.5)
    assert torch.allclose(plane, -plane.flip(0, 1), atol=1e-6)
    assert float(plane[0, 0, 0]) == pytest.approx(-spans(1.5)[0] * 5 / 6)
