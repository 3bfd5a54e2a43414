"""From training sets to batches: which pairs in which order, cropped and jittered by loader processes.

Everything random follows from the epoch and the pair's place in it. So a run goes on exactly where it stopped, the
number of loader processes changes nothing, and N processes with batches of b pairs train on what one with N b would.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unposed.errors import UserError
from unposed.geometry.cameras import pointmap_from_depth
from unposed.geometry.transforms import invert_rigid, transform_points
from unposed.train.colour_jitter import ColourJitter
from unposed.train.crop import PosedImage, training_view
from unposed.train.datasets.base import PairDataset
from unposed.train.matching import covisible_pixels, sample_correspondences
from unposed.train.recipe import Batch
from unposed.train.schedule import batch_order, resized_indices

Resolution = tuple[int, int]
"""(width, height) with width >= height, multiples of 16."""
_Item = tuple[int, int, int]
"""(epoch, place of the pair in the epoch's mixture, resolution)."""


@dataclass(frozen=True)
class MixedSet:
    """A training set and how it takes part in a mixture."""

    dataset: PairDataset
    pairs: int
    """Per epoch: ``N @ dataset``. A permutation of the epoch, repeated where the set has fewer."""
    focal_jitter: int = 0
    """Crops are scaled to a target up to this many pixels less one larger (``aug_crop``), which varies the focal."""


class PairLoader:
    """Batches of a mixture of training sets (DUSt3R's sampler, crops and colour jitter).

    An epoch is ``pairs`` of every set, shuffled together; every batch has one resolution, the same on all processes.
    """

    def __init__(
        self,
        sets: Sequence[MixedSet],
        resolutions: Sequence[Resolution],
        batch: int,
        *,
        correspondences: int = 0,
        swapped: bool = True,
        jitter: ColourJitter | None = ColourJitter(),  # noqa: B008  # frozen
        workers: int = 0,
    ) -> None:
        """``batch`` pairs a process and step; ``swapped`` adds each of them with its views exchanged.

        ``correspondences`` of each pair for the matching term; ``jitter`` None leaves colours as they are; ``workers``
        are loader processes.
        """
        self._sets, self._resolutions, self.batch = tuple(sets), tuple(resolutions), batch
        self._swapped, self._workers = swapped, workers
        self._samples = _Samples(self._sets, self._resolutions, correspondences, jitter)

    def __len__(self) -> int:
        """Pairs an epoch, before what does not fill a batch is left out."""
        return sum(entry.pairs for entry in self._sets)

    def steps(self, world: int = 1) -> int:
        """Batches an epoch that each of ``world`` processes gets."""
        steps = len(self) // (self.batch * world)
        if steps == 0:
            raise UserError(f"the mixture has {len(self)} pairs an epoch, fewer than a batch of {self.batch * world}.")
        return steps

    def batches(
        self,
        epoch: int,
        position: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> Iterator[Batch]:
        """The rest of an epoch for process ``rank`` of ``world``, from batch ``position`` on.

        A batch has the tensors of ``unposed.train.pairs.pair_batch``, and ``true_shape_k``: (height, width) of every
        picture, since portrait ones are stored transposed among landscape ones (their points and intrinsics stay those
        of the real camera); ``metric``: whose truth is in metres. With ``swapped`` a pair is followed by its exchange,
        and ``views`` are [a0, b0, a1, b1, ...]: encode those once.

        Raises:
            UserError: a file is missing or damaged, or an epoch has less than one batch.
        """
        device = torch.device(device)
        loader: DataLoader[dict[str, Tensor] | UserError] = DataLoader(
            self._samples,
            sampler=self._plan(epoch, rank, world)[position:],
            batch_size=None,  # an item of the data set is a whole batch
            num_workers=self._workers,
            pin_memory=device.type == "cuda",
            multiprocessing_context="spawn" if self._workers else None,  # a fork inherits OpenCV's threads, and hangs
            worker_init_fn=_one_thread,
            generator=torch.Generator(),  # seeds the loaders, which draw nothing from it; leaves the global one alone
        )
        for made in loader:
            if isinstance(made, UserError):
                raise made
            yield _batch({name: t.to(device, non_blocking=True) for name, t in made.items()}, self._swapped)

    def _plan(self, epoch: int, rank: int, world: int) -> list[list[_Item]]:
        """Batches of a process in an epoch: its part of every batch of all processes."""
        order = batch_order(len(self), self.batch * world, len(self._resolutions), epoch)
        mine = order.reshape(self.steps(world), world, self.batch, 2)[:, rank]
        return [[(epoch, place, resolution) for place, resolution in rows] for rows in mine.tolist()]


class _Samples(Dataset[dict[str, Tensor] | UserError]):
    """What a loader process makes of a list of items: cropped, jittered pairs as stacked tensors."""

    def __init__(
        self,
        sets: tuple[MixedSet, ...],
        resolutions: tuple[Resolution, ...],
        correspondences: int,
        jitter: ColourJitter | None,
    ) -> None:
        self._sets, self._resolutions = sets, resolutions
        self._correspondences, self._jitter = correspondences, jitter
        self._ends = np.cumsum([entry.pairs for entry in sets])
        self._epoch = -1
        self._chosen: list[Int[np.ndarray, " pairs"]] = []

    def __getitem__(self, items: list[_Item]) -> dict[str, Tensor] | UserError:
        """A stacked batch; what a user can mend comes back as a value, since loader processes garble exceptions."""
        try:
            samples = [self._sample(*item) for item in items]
        except UserError as error:
            return error
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}

    def _sample(self, epoch: int, place: int, resolution: int) -> dict[str, Tensor]:
        if epoch != self._epoch:
            self._chosen = [resized_indices(len(entry.dataset), entry.pairs, epoch) for entry in self._sets]
            self._epoch = epoch
        which = int(np.searchsorted(self._ends, place, side="right"))
        entry = self._sets[which]
        index = int(self._chosen[which][place - (self._ends[which] - entry.pairs)])
        rng = np.random.default_rng([epoch, place])
        views = entry.dataset.pair(index, rng)
        photos = [training_view(v.photo, self._resolutions[resolution], rng, entry.focal_jitter) for v in views]
        if self._jitter is not None:
            photos = [replace(p, image=self._jitter(p.image, rng)) for p in photos]
        first, second = (torch.from_numpy(view.world_from_camera).double() for view in views)
        made = _tensors(photos, (invert_rigid(first) @ second).float())
        if self._correspondences:
            generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
            made |= _correspondences(made, self._correspondences, generator)
        return made | {"metric": torch.tensor(entry.dataset.metric)}


def _tensors(photos: Sequence[PosedImage], camera_1_from_2: Float[Tensor, "4 4"]) -> dict[str, Tensor]:
    """Both views of a pair; the pictures of portrait ones are transposed."""
    landscape = [photo if photo.size[0] >= photo.size[1] else _transposed(photo) for photo in photos]
    return {
        "images": torch.from_numpy(np.stack([photo.image for photo in landscape])),
        "depth": torch.from_numpy(np.stack([photo.depth for photo in landscape])),
        "intrinsics": torch.from_numpy(np.stack([photo.intrinsics for photo in photos])).float(),
        "true_shape": torch.tensor([photo.depth.shape for photo in photos]),
        "camera_1_from_2": camera_1_from_2,
    }


def _transposed(photo: PosedImage) -> PosedImage:
    return replace(photo, image=photo.image.swapaxes(0, 1), depth=photo.depth.T)


def _correspondences(pair: dict[str, Tensor], count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """True correspondences of a pair, as indices into the pictures as they are stored."""
    mirror = _mirror(pair["true_shape"])
    intrinsics, depth = _conjugated(pair["intrinsics"], mirror), pair["depth"]
    second_from_first = mirror[1] @ invert_rigid(pair["camera_1_from_2"]) @ mirror[0]
    pixels, seen = covisible_pixels(depth[:1], depth[1:], intrinsics[:1], intrinsics[1:], second_from_first[None])
    found = sample_correspondences(pixels, seen, count, generator)
    return {"pixels": torch.cat([found.pixels_1, found.pixels_2]), "matched": found.valid[0]}


def _mirror(shapes: Int[Tensor, "*views 2"]) -> Float[Tensor, "*views 4 4"]:
    """Exchange of x and y for the views that are portrait and stored transposed; the identity for others.

    A transposed picture is what a camera sees whose frame has x and y exchanged. With such a frame (and with fx and fy,
    cx and cy exchanged), whatever holds of depth, cameras and pixels holds of it unchanged.
    """
    same = torch.eye(4, device=shapes.device)
    return torch.where((shapes[..., 0] > shapes[..., 1])[..., None, None], same[[1, 0, 2, 3]], same)


def _conjugated(intrinsics: Float[Tensor, "*views 3 3"], mirror: Float[Tensor, "*views 4 4"]) -> Tensor:
    """Intrinsics of the pictures as they are stored."""
    return mirror[..., :3, :3] @ intrinsics @ mirror[..., :3, :3]


def _batch(stacked: dict[str, Tensor], swapped: bool) -> Batch:
    """The batch of stacked pairs, its points in true camera frames."""
    mirror = _mirror(stacked["true_shape"])
    points = pointmap_from_depth(stacked["depth"], _conjugated(stacked["intrinsics"], mirror))
    stacked = stacked | {
        "points": torch.einsum("bvij,bvhwj->bvhwi", mirror[..., :3, :3], points),
        "valid": stacked["depth"] > 0,
        "view": torch.arange(2 * len(points), device=points.device).view(-1, 2),
    }
    ways = [_one_way(stacked, 0, 1, stacked["camera_1_from_2"])]
    if swapped:
        ways.append(_one_way(stacked, 1, 0, invert_rigid(stacked["camera_1_from_2"])))
    batch = {name: torch.stack([way[name] for way in ways], 1).flatten(0, 1) for name in ways[0]}
    images = stacked["images"].flatten(0, 1).permute(0, 3, 1, 2)
    return batch | {"views": images.float() / 127.5 - 1}


def _one_way(stacked: dict[str, Tensor], first: int, second: int, first_from_second: Float[Tensor, "b 4 4"]) -> Batch:
    """Pairs whose view 1 is ``first``: all but the images."""
    batch = {}
    for k, source in ((1, first), (2, second)):
        for name in ("points", "valid", "intrinsics", "true_shape", "view", "pixels"):
            if name in stacked:
                batch[f"{name}_{k}"] = stacked[name][:, source]
        batch[f"sky_{k}"] = torch.zeros_like(batch[f"valid_{k}"])
    batch["points_2"] = transform_points(first_from_second, batch["points_2"])
    batch |= {"camera_1_from_2": first_from_second, "metric": stacked["metric"]}
    return batch | ({"matched": stacked["matched"]} if "matched" in stacked else {})


def _one_thread(_: int) -> None:
    """In a loader process: parallelism is the number of processes."""
    cv2.setNumThreads(1)
