import math

import pytest
import torch

from unposed.geometry.cameras import intrinsics_matrix, pixel_grid, project
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import invert_rigid, rigid, transform_points
from unposed.train.matching import (
    Correspondences,
    Matching,
    average_precision,
    covisible_pixels,
    info_nce,
    sample_correspondences,
    unmatched_pixels,
)
from unposed.train.pairs import choose_pairs, images_of, overlaps, pair_batch, pairs_of_views


class Plane:
    """Views of the plane z = 4 by cameras that look at it, with exact depth; one scene, three views."""

    def __init__(self, height: int = 24, width: int = 32) -> None:
        turn = matrix_from_axis_angle(torch.tensor([[0.0, 0.0, 0.0], [0.05, -0.2, 0.1], [0.0, math.pi, 0.0]]))
        centre = torch.tensor([[0.0, 0.0, 0.0], [0.6, 0.1, -0.3], [0.0, 0.0, 0.0]])
        self.world_from_camera = rigid(turn, centre)[None]
        k = intrinsics_matrix(30.0, torch.tensor([(width - 1) / 2, (height - 1) / 2]))
        self.intrinsics = k.expand(1, 3, 3, 3)
        grid = torch.cat([pixel_grid(height, width), torch.ones(height, width, 1)], -1)
        rays = torch.einsum("vij,hwj->vhwi", self.world_from_camera[0, :, :3, :3] @ torch.linalg.inv(k), grid)
        depth = (4 - centre[:, None, None, 2]) / rays[..., 2]  # of a ray with z = 1 in its camera
        self.depth = torch.where(depth > 0, depth, 0.0)[None]
        self.images = torch.rand(1, 3, 3, height, width)


def test_covisible_pixels_are_the_projections():
    scene = Plane()
    camera_2_from_1 = invert_rigid(scene.world_from_camera[:, 1]) @ scene.world_from_camera[:, 0]
    index, seen = covisible_pixels(
        scene.depth[:, 0], scene.depth[:, 1], scene.intrinsics[:, 0], scene.intrinsics[:, 1], camera_2_from_1
    )
    assert 0.3 < seen.float().mean() < 1
    batch = pair_batch(
        *(t[0] for t in (scene.images, scene.depth, scene.intrinsics, scene.world_from_camera)),
        torch.tensor([0]),
        torch.tensor([1]),
        64,
        torch.Generator(),
    )
    torch.testing.assert_close(batch["camera_1_from_2"], invert_rigid(camera_2_from_1))
    in_2 = project(transform_points(camera_2_from_1, batch["points_1"]).flatten(1, 2), scene.intrinsics[:, 1])
    expected = in_2.round()
    assert torch.equal(index[seen], (expected[..., 1] * 32 + expected[..., 0]).long()[seen])
    # matched pixels see nearly the same point of the frame of camera 1
    p1 = batch["points_1"].flatten(1, 2)[0, batch["pixels_1"][0]]
    p2 = batch["points_2"].flatten(1, 2)[0, batch["pixels_2"][0]]
    gap = (p1 - p2).norm(dim=-1)[batch["matched"][0]]
    assert gap.max() < 0.2


def test_a_wall_in_front_hides():
    scene = Plane()
    hidden = scene.depth[:, 1] * 0.5
    camera_2_from_1 = invert_rigid(scene.world_from_camera[:, 1]) @ scene.world_from_camera[:, 0]
    _, seen = covisible_pixels(
        scene.depth[:, 0], hidden, scene.intrinsics[:, 0], scene.intrinsics[:, 1], camera_2_from_1
    )
    assert not seen.any()


def test_overlap_picks_the_views_that_see_the_same():
    scene = Plane()
    share = overlaps(scene)
    assert share.shape == (1, 3, 3)
    assert share[0, 0, 0] == 1
    assert share[0, 0, 1] > 0.3
    assert share[0, 0, 2] == 0  # looks away from the plane
    where, i, j = choose_pairs(share, 2, 0.3, 1.0, torch.Generator())
    assert where.tolist() == [0, 0]
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 1), (1, 0)]
    batch = pairs_of_views(scene, scene.images, 2, (0.3, 1.0), 32, torch.Generator())
    images = images_of(batch)
    torch.testing.assert_close((images[0] + 1) / 2, scene.images[0, batch["view_1"]])
    torch.testing.assert_close((images[1] + 1) / 2, scene.images[0, batch["view_2"]])
    assert all(len(tensor) == 2 for name, tensor in batch.items() if name != "views")


def test_samples_are_mostly_positive_where_there_are_positives():
    covisible = torch.zeros(2, 100, dtype=torch.bool)
    covisible[0, 40:] = True
    covisible[1, :3] = True
    index = torch.arange(100).flip(0).expand(2, -1)
    picked = sample_correspondences(index, covisible, 20, torch.Generator())
    assert picked.valid.sum(1).tolist() == [15, 3]
    assert torch.equal(picked.pixels_2, 99 - picked.pixels_1)


@pytest.mark.parametrize("mode", ["all", "proper", "dual"])
def test_info_nce_is_the_negative_logarithm_of_a_probability(mode):
    d1, d2 = (torch.nn.functional.normalize(torch.randn(2, 6, 4), dim=-1) for _ in range(2))
    e = torch.exp(d1 @ d2.mT / 0.2)
    hit = e.diagonal(dim1=1, dim2=2)
    rows, columns = hit / e.sum(2), hit / e.sum(1)
    expected = {"all": hit / e.sum((1, 2))[:, None], "proper": rows * columns, "dual": rows * columns}[mode]
    torch.testing.assert_close(info_nce(d1, d2, 0.2, mode), -expected.log(), rtol=1e-4, atol=1e-5)


def test_descriptors_and_their_confidence_learn_to_match():
    torch.manual_seed(0)
    truth = Correspondences(torch.arange(12)[None], torch.arange(12).flip(0)[None], torch.arange(12)[None] < 9)
    d1, d2 = (torch.randn(1, 3, 4, 8, requires_grad=True) for _ in range(2))
    q = torch.zeros(1, 3, 4, requires_grad=True)
    optimiser = torch.optim.Adam([d1, d2, q], 0.05)
    loss = Matching()
    first = last = None
    for _ in range(150):
        maps = (torch.nn.functional.normalize(d1, dim=-1), torch.nn.functional.normalize(d2, dim=-1))
        last = loss(maps, (q.exp(), q.exp()), truth)
        first = first or last
        optimiser.zero_grad()
        last.total.backward()
        optimiser.step()
    assert last.parts["matching"] < 0.1 * first.parts["matching"]
    assert last.parts["matching_confidence"] > 2
    assert q.grad.isfinite().all()
    nothing = truth._replace(valid=torch.zeros(1, 12, dtype=torch.bool))
    assert loss(maps, (q.exp(), q.exp()), nothing).total == 0


def test_average_precision_counts_what_scores_higher():
    d1 = torch.eye(3)[None]
    d2 = torch.tensor([[[1.0, 0, 0], [0, 0.5, 0], [0, 0.6, 0.2]]])
    assert average_precision(d1, d2)[0].tolist() == pytest.approx([1, 0.5, 1])
    others = torch.tensor([[[2.0, 0.9, 0], [0, 0, 9]]])
    assert average_precision(d1, d2, others)[0].tolist() == pytest.approx([0.5, 1 / 3, 0.5])
    known = torch.tensor([[True, False]])
    assert average_precision(d1, d2, others, known)[0].tolist() == pytest.approx([0.5, 1 / 3, 1])


def test_unmatched_pixels_are_the_first_free_ones():
    free = unmatched_pixels(torch.tensor([[0, 3], [4, 4]]), count=6, most=3)
    assert free.tolist() == [[False, True, True, False, True, False], [True, True, True, False, False, False]]


def test_blocks_compete_among_themselves():
    maps = tuple(torch.nn.functional.normalize(torch.randn(2, 3, 4, 8), dim=-1) for _ in range(2))
    truth = Correspondences(*(torch.randperm(12).expand(2, -1) for _ in range(2)), torch.ones(2, 12, dtype=torch.bool))
    order = torch.arange(12).expand(2, -1)
    halves = [Correspondences(*(t[:, k : k + 6] for t in truth)) for k in (0, 6)]
    plain = Matching(alpha=None)
    expected = sum(plain(maps, None, half).total for half in halves) / 2
    blocked = Matching(alpha=None, block=6)
    assert blocked(maps, None, truth, order).total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert blocked(maps, None, truth).total < plain(maps, None, truth).total


def test_pixels_without_a_partner_learn_to_be_unsure():
    maps = tuple(torch.nn.functional.normalize(torch.randn(1, 3, 4, 8), dim=-1) for _ in range(2))
    truth = Correspondences(torch.arange(12)[None], torch.arange(12)[None], torch.arange(12)[None] < 6)
    raw = torch.zeros(1, 3, 4, requires_grad=True)
    loss = Matching(alpha=0.1, negative_quantile=0.9)(maps, (raw.exp(), raw.exp()), truth).total
    (gradient,) = torch.autograd.grad(loss, raw)
    assert (gradient.flatten()[6:] > 0).all()
    without = Matching(alpha=0.1)(maps, (raw.exp(), raw.exp()), truth).total
    assert torch.autograd.grad(without, raw)[0].flatten()[6:].abs().max() == 0
