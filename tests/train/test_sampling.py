from collections import Counter
from itertools import product

import pytest
import torch

from tests.train.datasets.layouts import camera, rendered
from unposed.errors import UserError
from unposed.geometry.cameras import pixel_grid, project
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.train.crop import PosedImage
from unposed.train.datasets import TrainingView
from unposed.train.sampling import MixedSet, PairLoader

WIDE = [(48, 32), (48, 16)]


class InMemory:
    """All ordered pairs of views of two rooms, one photographed in portrait; counts what is read."""

    def __init__(self, sizes=((48, 64), (64, 48)), metric=True):
        self.metric = metric
        self.read = Counter()
        self.views = []
        for seed, (height, width) in enumerate(sizes):
            scene = rendered(3 + seed, 3, height, width)
            for k in range(3):
                colours = (scene.images[0, k].permute(1, 2, 0) * 255).byte().numpy()
                intrinsics, pose = camera(scene, k)
                photo = PosedImage(colours, scene.depth[0, k].numpy(), intrinsics)
                self.views.append(TrainingView(photo, pose, str(seed), str(k)))
        self.pairs = [(a, b) for a, b in product(range(len(self.views)), repeat=2) if a != b and a // 3 == b // 3]

    def __len__(self):
        return len(self.pairs)

    def pair(self, index, rng):
        self.read[index] += 1
        first, second = self.pairs[index]
        return self.views[first], self.views[second]


@pytest.fixture(scope="module")
def rooms():
    return InMemory()


def equal(batch, other):
    return batch.keys() == other.keys() and all(torch.equal(batch[name], other[name]) for name in batch)


def upright(maps, batch, view):
    """The maps of one view of every pair as the camera took them."""
    shapes = batch[f"true_shape_{view}"].tolist()
    return [m if list(m.shape[:2]) == shape else m.transpose(0, 1) for m, shape in zip(maps, shapes, strict=True)]


def test_points_reproject_to_their_pixels_whatever_the_orientation(rooms):
    loader = PairLoader([MixedSet(rooms, 12, 8)], WIDE, 4, correspondences=64)
    orientations = set()
    for batch in loader.batches(0):
        assert batch["views"].shape[-2:] in {(32, 48), (16, 48)}  # portraits are stored as landscapes
        in_2 = transform_points(invert_rigid(batch["camera_1_from_2"]), batch["points_2"])
        for k, points in ((1, batch["points_1"]), (2, in_2)):
            maps, valid = upright(points, batch, k), upright(batch[f"valid_{k}"], batch, k)
            for p, v, intrinsics in zip(maps, valid, batch[f"intrinsics_{k}"], strict=True):
                orientations.add(p.shape[0] > p.shape[1])
                pixels = project(p.flatten(0, 1), intrinsics)
                gap = (pixels - pixel_grid(*p.shape[:2]).flatten(0, 1)).norm(dim=-1)
                assert gap[v.flatten()].max() < 0.01
                assert v.any()
    assert orientations == {True, False}


def test_correspondences_are_the_same_points_of_the_same_colour(rooms):
    loader = PairLoader([MixedSet(rooms, 12)], [(48, 32)], 4, correspondences=64, jitter=None)
    for batch in loader.batches(0):
        first, second = (
            batch[f"points_{k}"].flatten(1, 2).gather(1, batch[f"pixels_{k}"][..., None].expand(-1, -1, 3))
            for k in (1, 2)
        )
        gap = (first - second).norm(dim=-1) / first.norm(dim=-1)
        assert gap[batch["matched"]].median() < 0.05
        assert batch["matched"].float().mean() > 0.2
        images = [batch["views"][batch[f"view_{k}"]].flatten(2) for k in (1, 2)]
        colours = [
            image.gather(2, batch[f"pixels_{k}"][:, None].expand(-1, 3, -1)) for k, image in enumerate(images, start=1)
        ]
        assert (colours[0] - colours[1]).abs().mean(1)[batch["matched"]].median() < 0.3


def test_a_pair_is_followed_by_its_exchange(rooms):
    batch = next(PairLoader([MixedSet(rooms, 12)], WIDE, 2, correspondences=16).batches(0))
    assert batch["view_1"].tolist() == [0, 1, 2, 3]
    assert batch["view_2"].tolist() == [1, 0, 3, 2]
    for name in ("valid", "intrinsics", "true_shape", "pixels"):
        assert torch.equal(batch[f"{name}_1"][::2], batch[f"{name}_2"][1::2])
        assert torch.equal(batch[f"{name}_2"][::2], batch[f"{name}_1"][1::2])
    torch.testing.assert_close(
        batch["camera_1_from_2"][::2] @ batch["camera_1_from_2"][1::2], torch.eye(4).expand(2, 4, 4), atol=1e-5, rtol=0
    )
    single = next(PairLoader([MixedSet(rooms, 12)], WIDE, 2, correspondences=16, swapped=False).batches(0))
    assert torch.equal(single["points_2"], batch["points_2"][::2])
    assert torch.equal(single["views"], batch["views"])


def test_a_run_goes_on_in_the_middle_of_an_epoch_with_any_number_of_loaders(rooms):
    sets = [MixedSet(rooms, 7, 4), MixedSet(InMemory(((64, 64), (48, 64)), metric=False), 6)]
    alone = list(PairLoader(sets, WIDE, 2, correspondences=8).batches(3))
    assert len(alone) == PairLoader(sets, WIDE, 2).steps() == 6
    resumed = list(PairLoader(sets, WIDE, 2, correspondences=8, workers=2).batches(3, position=2))
    assert len(resumed) == 4
    assert all(equal(a, b) for a, b in zip(alone[2:], resumed, strict=True))
    assert not equal(alone[0], next(PairLoader(sets, WIDE, 2, correspondences=8).batches(4)))


def test_processes_share_the_batches_that_one_would_have(rooms):
    sets = [MixedSet(rooms, 13, 4)]
    one = list(PairLoader(sets, WIDE, 4).batches(1))
    ranks = [list(PairLoader(sets, WIDE, 2).batches(1, rank=rank, world=2)) for rank in (0, 1)]
    assert len(one) == len(ranks[0]) == len(ranks[1]) == 3
    for whole, *parts in zip(one, *ranks, strict=True):
        assert torch.equal(whole["views"], torch.cat([part["views"] for part in parts]))
        assert torch.equal(whole["points_2"], torch.cat([part["points_2"] for part in parts]))


def test_an_epoch_is_so_many_pairs_of_each_set():
    large, small = InMemory(), InMemory(((32, 48),), metric=False)
    loader = PairLoader([MixedSet(large, 6), MixedSet(small, 18)], [(32, 32)], 4)
    metric = torch.cat([batch["metric"] for batch in loader.batches(0)])
    assert (metric.sum(), len(metric)) == (12, 48)  # with exchanged pairs
    assert set(large.read.values()) == {1}  # 6 of 12 pairs, each once
    assert len(large.read) == 6
    assert set(small.read.values()) == {3}  # 6 pairs, each three times
    chosen = set(large.read)
    for epoch in range(1, 6):
        list(loader.batches(epoch))
    assert set(large.read) > chosen  # another part of a large set in another epoch


def test_every_batch_has_one_shape_and_an_epoch_has_all(rooms):
    shapes = Counter(tuple(b["views"].shape) for b in PairLoader([MixedSet(rooms, 40)], WIDE, 4).batches(0))
    assert set(shapes) == {(8, 3, 32, 48), (8, 3, 16, 48)}


def test_colours_of_both_views_change_on_their_own(rooms):
    plain = next(PairLoader([MixedSet(rooms, 12)], [(32, 32)], 4, jitter=None).batches(0))["views"]
    jittered = next(PairLoader([MixedSet(rooms, 12)], [(32, 32)], 4).batches(0))["views"]
    change = (jittered - plain).mean((2, 3))
    assert change.abs().max(1).values.min() > 0.01
    assert (change[::2] - change[1::2]).abs().max() > 0.1
    assert plain.min() >= -1
    assert plain.max() <= 1


def test_focal_jitter_zooms_in(rooms):
    focals = [
        torch.cat([b["intrinsics_1"][:, 0, 0] for b in PairLoader([MixedSet(rooms, 12, k)], [(32, 32)], 4).batches(0)])
        for k in (0, 24)
    ]
    assert (focals[1] >= focals[0] - 1e-3).all()
    assert len(focals[1].unique()) > len(focals[0].unique())


class Broken(InMemory):
    def pair(self, index, rng):
        raise UserError("photo.jpg is missing.")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_file_is_one_sentence_whoever_reads_it(workers):
    with pytest.raises(UserError) as raised:
        list(PairLoader([MixedSet(Broken(), 4)], WIDE, 2, workers=workers).batches(0))
    assert str(raised.value) == "photo.jpg is missing."


def test_an_epoch_smaller_than_a_batch_is_refused(rooms):
    with pytest.raises(UserError, match="fewer than a batch of 8"):
        next(PairLoader([MixedSet(rooms, 6)], WIDE, 4).batches(0, world=2))
