"""Training sets of posed photos with depth, in the layouts that DUSt3R's pre-processing leaves, and a user's own.

A new set is one file with one class that fulfils ``PairDataset``, and one row here.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unposed.errors import UserError
from unposed.train.datasets.base import PairDataset, TrainingView
from unposed.train.datasets.blendedmvs import BlendedMvs
from unposed.train.datasets.co3d import Co3d
from unposed.train.datasets.habitat import Habitat
from unposed.train.datasets.megadepth import MegaDepth
from unposed.train.datasets.photos import Photos
from unposed.train.datasets.scans import ArkitScenes, ScanNetPlusPlus
from unposed.train.datasets.staticthings3d import StaticThings3d
from unposed.train.datasets.waymo import Waymo
from unposed.train.datasets.wildrgbd import WildRgbd

__all__ = ["DATASETS", "PairDataset", "TrainingView", "open_dataset"]

DATASETS: dict[str, Callable[..., PairDataset]] = {
    "arkitscenes": ArkitScenes,
    "blendedmvs": BlendedMvs,
    "co3d": Co3d,
    "habitat": Habitat,
    "megadepth": MegaDepth,
    "photos": Photos,
    "scannetpp": ScanNetPlusPlus,
    "staticthings3d": StaticThings3d,
    "waymo": Waymo,
    "wildrgbd": WildRgbd,
}
"""Every kind of set: called with its folder and its options."""


def open_dataset(kind: str, folder: Path, **options: Any) -> PairDataset:
    """The set of a kind in a folder.

    Raises:
        UserError: no such kind, folder or option, no pairs, or a list that is missing or damaged.
    """
    if kind not in DATASETS:
        raise UserError(f"There is no kind of training set {kind}: use one of {', '.join(DATASETS)}.")
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: put the pre-processed {kind} there, or leave it out of the mixture.")
    try:
        inspect.signature(DATASETS[kind]).bind(folder, **options)
    except TypeError as error:
        raise UserError(f"The training set {kind} does not take these options: {error}.") from error
    dataset = DATASETS[kind](folder, **options)
    if len(dataset) == 0:
        raise UserError(f"{folder} lists no pair of {kind} for these options: is another split there?")
    return dataset
