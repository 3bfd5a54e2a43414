"""The benchmarks whose layouts can be read, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unposed.evaluation.datasets import cambridge, megadepth, scannet, sevenscenes, sintel, tum

Kind = Literal["sequences", "pairs", "relocalisation"]
"""What a reader gives: ``FrameSequence``, ``PosedPair`` or ``Relocalisation``."""


@dataclass(frozen=True)
class Reader:
    """How one layout is read."""

    name: str
    kind: Kind
    layout: str
    """What the folder holds, in one line."""
    read: Callable[..., Sequence[Any]]
    """``read(root, scenes=None, **options)``: the nouns of ``kind``, of the named scenes or of all; pixels are read
    later. Raises ``UserError`` with a sentence that names what is missing."""


_TABLE = (
    Reader(
        "7scenes",
        "relocalisation",
        "<scene>/{TrainSplit,TestSplit}.txt, <scene>/seq-01/frame-000000.{color.png,pose.txt,depth.proj.png}",
        sevenscenes.read,
    ),
    Reader("7scenes-sequences", "sequences", "as 7scenes: the test sequences", sevenscenes.read_sequences),
    Reader(
        "cambridge",
        "relocalisation",
        "<Scene>/{reconstruction.nvm,dataset_train.txt,dataset_test.txt}, <Scene>/seq1/frame00001.png",
        cambridge.read,
    ),
    Reader(
        "scannet1500",
        "pairs",
        "test.npz, scannet_test_1500/scene0707_00/{color/15.jpg,pose/15.txt,intrinsic/intrinsic_depth.txt}",
        scannet.read,
    ),
    Reader(
        "megadepth1500",
        "pairs",
        "megadepth_test_pairs.txt, megadepth_meta_test.npz, and the photos at the paths in them",
        megadepth.read,
    ),
    Reader(
        "scannet-video", "sequences", "scene0707_00/{color/0.jpg,depth/0.png,pose/0.txt,intrinsic}", scannet.read_video
    ),
    Reader(
        "sintel",
        "sequences",
        "training/{final,depth,camdata_left}/<sequence>/frame_0001.{png,dpt,cam}",
        sintel.read,
    ),
    Reader("tum", "sequences", "<sequence>/{rgb.txt,depth.txt,groundtruth.txt,rgb,depth}", tum.read),
    Reader("bonn", "sequences", "[rgbd_bonn_dataset/]rgbd_bonn_<name>/{rgb,depth,groundtruth.txt}", tum.read_bonn),
)

READERS: dict[str, Reader] = {reader.name: reader for reader in _TABLE}
"""Every reader by its name."""
