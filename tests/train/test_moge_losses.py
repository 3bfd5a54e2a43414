import pytest
import torch

from unposed.geometry.view_plane import view_plane
from unposed.train import moge_losses

HEIGHT, WIDTH, FOCAL = 36, 48, 1.2


@pytest.fixture
def truth():
    """A wavy surface with a hole of unknown points and a corner of sky."""
    rows, columns = torch.meshgrid(torch.linspace(0, 3, HEIGHT), torch.linspace(0, 4, WIDTH), indexing="ij")
    depth = 3 + rows.sin() * columns.cos()
    points = torch.cat([view_plane(HEIGHT, WIDTH, WIDTH / HEIGHT) / FOCAL * depth[..., None], depth[..., None]], -1)
    points[10:14, 20:30] = torch.nan
    points[:5, :5] = torch.inf
    return points


def affine(truth, scale=0.4, shift=0.7):
    filled = truth.nan_to_num(1.0, 1.0, 1.0)
    return ((filled - torch.tensor([0.0, 0, shift])) / scale).requires_grad_()


def noisy(truth, amount=0.05):
    stream = torch.Generator().manual_seed(0)
    return (affine(truth).detach() * (1 + amount * torch.randn(truth.shape, generator=stream))).requires_grad_()


def test_the_global_loss_forgives_scale_and_z_shift_only(truth):
    exact = moge_losses.global_loss(affine(truth), truth)
    assert exact.loss.item() < 1e-5
    assert float(exact.scale) == pytest.approx(0.4, rel=1e-4)
    assert float(exact.delta) == pytest.approx(1, abs=1e-5)
    sideways = affine(truth).detach() + torch.tensor([1.0, 0, 0])
    assert float(moge_losses.global_loss(sideways, truth).loss) > 0.01


def test_losses_go_down_with_their_gradient(truth):
    anchors = moge_losses.sample_anchors(truth, FOCAL / 2, 4, 6, torch.Generator().manual_seed(0))
    for loss in (
        lambda p: moge_losses.global_loss(p, truth, align_resolution=12).loss,
        lambda p: moge_losses.local_loss(p, truth, FOCAL / 2, anchors, level=4, align_resolution=8).loss,
        lambda p: moge_losses.normal_loss(p, truth),
        lambda p: moge_losses.edge_loss(p, truth),
    ):
        prediction = noisy(truth)
        before = loss(prediction)
        before.backward()
        assert prediction.grad.isfinite().all()
        step = 1e-3 * prediction.grad / prediction.grad.abs().max()
        assert float(loss((prediction - step).detach())) < float(before)


def test_the_local_loss_forgives_every_patch_its_own_scale_and_shift(truth):
    anchors = torch.tensor([[20, 10], [28, 40]])
    prediction = affine(truth).detach()
    prediction[:, WIDTH // 2 :] = prediction[:, WIDTH // 2 :] * 3 + torch.tensor([1.0, -2, 0.5])
    options = {"level": 8, "align_resolution": 6}
    assert float(moge_losses.local_loss(prediction, truth, FOCAL / 2, anchors, **options).loss) < 1e-5
    away = moge_losses.local_loss(
        prediction * 0.01, truth, FOCAL / 2, anchors, global_scale=torch.tensor(0.4), **options
    )
    assert float(away.loss) == 0  # every scale is a hundred times off


def test_patches_without_pixels_cost_nothing(truth):
    prediction = affine(truth)
    found = moge_losses.local_loss(prediction, truth, FOCAL / 2, torch.tensor([[20, 20]]), level=64, align_resolution=4)
    found.loss.backward()
    assert found.loss.item() == 0
    assert not prediction.grad.any()
    assert len(moge_losses.sample_anchors(torch.full((8, 8, 3), torch.nan), 1.0, 4, 3)) == 0


def test_anchors_are_known_pixels(truth):
    anchors = moge_losses.sample_anchors(truth, FOCAL / 2, 4, 200, torch.Generator().manual_seed(0))
    assert anchors.shape == (200, 2)
    assert truth[anchors[:, 0], anchors[:, 1]].isfinite().all()


def test_normals_and_edges_do_not_see_scale(truth):
    for loss in (moge_losses.normal_loss, moge_losses.edge_loss):
        scaled = affine(truth, shift=0.0).detach()
        assert float(loss(scaled, truth)) < 0.5 * float(loss(noisy(truth), truth))
    filled = truth.nan_to_num(1.0, 1.0, 1.0)
    assert float(moge_losses.normal_map_loss(filled, truth)) < 1e-5
    assert float(moge_losses.normal_map_loss(-filled, truth)) > 1


def test_masks_and_scales():
    finite = torch.tensor([[True, False, False]])
    infinite = torch.tensor([[False, True, False]])
    good, bad = torch.tensor([[0.99, 0.01, 0.5]]), torch.tensor([[0.01, 0.99, 0.5]])
    for loss in (moge_losses.mask_l2_loss, moge_losses.mask_bce_loss):
        assert float(loss(good, finite, infinite)) < 0.02 < float(loss(bad, finite, infinite))
    scales = moge_losses.metric_scale_loss(torch.tensor([2.0, 2.0]), torch.tensor([2.0, 0.0]))
    assert scales.tolist() == [0, 0]
