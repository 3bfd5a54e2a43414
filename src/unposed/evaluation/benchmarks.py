"""The benchmarks by name: which reader, which protocol with which settings, and what papers report.

Published numbers are read from the papers and stand beside ours in the tables; none was measured here. They are in the
unit of our columns (a fraction where ours is one).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from unposed.evaluation.baselines import sift_pose
from unposed.evaluation.datasets import dtu, sintel, tanks
from unposed.evaluation.datasets.base import FrameSequence, PosedPair
from unposed.evaluation.depth import DepthRule
from unposed.evaluation.protocols import photos
from unposed.evaluation.protocols.base import BenchmarkProtocol
from unposed.evaluation.protocols.camera_paths import CameraPaths
from unposed.evaluation.protocols.clouds import Clouds
from unposed.evaluation.protocols.depth_maps import SingleDepth, VideoDepth
from unposed.evaluation.protocols.dtu import DtuScans
from unposed.evaluation.protocols.key_view_depth import KeyViewDepth
from unposed.evaluation.protocols.localisation import Localisation
from unposed.evaluation.protocols.multiview_poses import MultiviewPoses
from unposed.evaluation.protocols.pair_poses import PairPoses
from unposed.evaluation.protocols.scans import ETH3D_DISTANCES, Scans, tanks_crop, tanks_distances
from unposed.evaluation.published import PUBLISHED, Published
from unposed.models.base import PairModel
from unposed.tasks.pose import relative_pose

PHOTOS = "photos"
"""Not a data set: any folder of photos with reference cameras or depth."""


@dataclass(frozen=True)
class Benchmark:
    """One table: data, protocol, settings."""

    name: str
    title: str
    reader: str
    """Name in ``unposed.evaluation.datasets.registry.READERS``, or ``PHOTOS``."""
    protocol: Callable[[PairModel], BenchmarkProtocol[Any]]
    columns: tuple[str, ...]
    """Of the tables; the files of results hold more."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the reader."""
    scenes: tuple[str, ...] | None = None
    """That the papers report, where it is not all that the reader finds."""
    baseline: Callable[[], BenchmarkProtocol[Any]] | None = None

    @property
    def published(self) -> Sequence[Published]:
        """What papers report in this table."""
        return PUBLISHED.get(self.name, ())


def _pairs_by(model: PairModel, **settings: Any) -> PairPoses:
    """The protocol of pairs with a model's relative poses; intrinsics are not told to it."""

    def solve(pair: PosedPair) -> Tensor:
        return relative_pose(pair.a.photo, pair.b.photo, model=model).b_from_a

    return PairPoses(solve, **settings)


def _table() -> Iterator[Benchmark]:
    yield Benchmark(
        PHOTOS, "Photo sets with reference cameras or depth", PHOTOS, photos.PhotoSets, photos.COLUMNS,
        baseline=photos.PhotoBaselines,
    )  # fmt: skip
    yield from _localisation()
    yield from _multiview_poses()
    yield from _pair_poses()
    yield from _single_depth()
    yield from _video()
    yield from _key_view_depth()
    yield from _clouds()
    yield from _scans()


def _localisation() -> Iterator[Benchmark]:
    columns = ("registered", "queries", "median_cm", "median_deg", "within (0.1 m, 1 deg)", "within (0.25 m, 2 deg)")
    for name, title, top_k in (
        ("7scenes", "7Scenes", 1),
        ("cambridge", "Cambridge Landmarks", 20),
        ("cambridge-dust3r", "Cambridge Landmarks as DUSt3R's tool takes it", 20),
    ):
        yield Benchmark(name, f"{title}: visual localisation", name, partial(Localisation, top_k=top_k), columns)
    for name, title in (("aachen", "Aachen Day-Night v1.1"), ("inloc", "InLoc")):
        title = f"{title}: poses for visuallocalization.net"
        yield Benchmark(name, title, name, partial(Localisation, limits=name), ("registered", "queries"))


def _multiview_poses() -> Iterator[Benchmark]:
    for reader, title in (
        ("co3d", "CO3Dv2"),
        ("co3d-dust3r", "CO3Dv2 as DUSt3R prepares it"),
        ("re10k", "RealEstate10K"),
        ("re10k-chunks", "RealEstate10K as pixelSplat packs it"),
    ):
        for frames in (10, 5, 3):
            yield Benchmark(
                f"{reader}-pose-{frames}",
                f"{title}: poses of {frames} random frames",
                reader,
                partial(MultiviewPoses, frames=frames),
                ("registered", "RRA@15", "RTA@15", "mAA@30"),
            )

    strict = partial(MultiviewPoses, share_deg=5, direction="unfolded")
    for reader, title, protocol in (
        ("eth3d", "ETH3D", partial(strict, frames=None)),
        ("tanks", "Tanks and Temples, 25 photos", partial(strict, frames=25)),
    ):
        yield Benchmark(
            f"{reader}-pose", f"{title}: poses", reader, protocol, ("registered", "RRA@5", "RTA@5", "mAA@30")
        )


def _pair_poses() -> Iterator[Benchmark]:
    columns = ("AUC@5", "AUC@10", "AUC@20", "rotation_median_deg", "translation_median_deg")
    for name, reader, title, settings in (
        ("scannet1500", "scannet1500", "ScanNet1500: relative pose (Reloc3r's variant)", {"inverse": True}),
        ("megadepth1500", "megadepth1500", "MegaDepth1500: relative pose (Reloc3r's variant)", {"inverse": True}),
        ("scannet1500-folded", "scannet1500", "ScanNet1500: relative pose (LoFTR's variant)", {"direction": "folded"}),
        ("re10k-pairs", "re10k-pairs", "RealEstate10K: relative pose (NoPoSplat's variant)", {"direction": "folded"}),
    ):
        yield Benchmark(
            name,
            title,
            reader,
            partial(_pairs_by, **settings),
            columns,
            baseline=partial(PairPoses, sift_pose, **settings),
        )


def _single_depth() -> Iterator[Benchmark]:
    columns = ("frames", "AbsRel", "delta1", "AbsRel over frames", "delta1 over frames", "RMSE")
    for reader, title, rule in (
        ("nyu", "NYUv2", DepthRule("median")),
        ("kitti", "KITTI", DepthRule("median")),
        ("bonn", "Bonn", DepthRule("median", max_depth=70)),
        ("tum", "TUM RGB-D", DepthRule("median")),
        ("sintel", "Sintel", DepthRule("median", max_depth=70, clip=70)),
    ):
        yield Benchmark(
            f"{reader}-depth",
            f"{title}: depth of single photos, median scaling",
            reader,
            partial(SingleDepth, rule=rule),
            columns,
        )


def _video() -> Iterator[Benchmark]:
    for reader, title, rule in (
        ("sintel", "Sintel", DepthRule(max_depth=70, clip=70)),
        ("bonn", "Bonn", DepthRule(max_depth=70)),
        ("kitti", "KITTI", DepthRule()),
    ):
        for ending, aligned, words in (
            ("", replace(rule, alignment="scale"), "scale"),
            ("-shift", replace(rule, alignment="lad2"), "scale and shift"),
        ):
            yield Benchmark(
                f"{reader}-video-depth{ending}",
                f"{title}: depth of videos, {words}",
                reader,
                partial(VideoDepth, rule=aligned),
                ("frames", "joined", "AbsRel", "delta1", "RMSE"),
            )
    columns = ("frames", "absolute", "relative_translation", "relative_rotation_deg", "absolute over solved")
    for reader, title, scenes in (
        ("sintel", "Sintel", sintel.POSE_SCENES),
        ("tum", "TUM RGB-D, dynamic", None),
        ("scannet-video", "ScanNet", None),
    ):
        yield Benchmark(f"{reader}-path", f"{title}: camera path", reader, CameraPaths, columns, scenes=scenes)


def _key_view_depth() -> Iterator[Benchmark]:
    for reader, title in (
        ("kitti", "KITTI"),
        ("scannet-video", "ScanNet"),
        ("eth3d", "ETH3D"),
        ("dtu", "DTU"),
    ):
        yield Benchmark(
            f"{reader}-key-depth",
            f"{title}: depth of key views from several, median scaling",
            reader,
            KeyViewDepth,
            ("key_views", "rel", "tau"),
        )


def _clouds() -> Iterator[Benchmark]:
    columns = ("registered", "accuracy", "accuracy_median", "completion", "completion_median", "normals", "chamfer")
    for name, reader, title, protocol in (
        ("7scenes-clouds", "7scenes-sequences", "7Scenes, every 20th frame (Spann3R)", partial(Clouds, every=20)),
        ("nrgbd-clouds", "nrgbd", "NRGBD, every 40th frame (Spann3R)", partial(Clouds, every=40)),
        (
            "dtu-clouds",
            "dtu",
            "DTU in mm, every 5th frame (Spann3R)",
            partial(Clouds, every=5, icp_limit=100.0, threshold=2.0),
        ),
        (
            "7scenes-clouds-sparse",
            "7scenes-sequences",
            "7Scenes, every 200th frame (CUT3R)",
            partial(Clouds, every=200, centre_crop=224),
        ),
        (
            "nrgbd-clouds-sparse",
            "nrgbd",
            "NRGBD, every 500th frame (CUT3R)",
            partial(Clouds, every=500, centre_crop=224),
        ),
    ):
        yield Benchmark(name, f"{title}: point clouds", reader, protocol, columns)
    yield Benchmark(
        "dtu",
        "DTU: official evaluation, mm",
        "dtu",
        DtuScans,
        ("photos", "registered", "accuracy", "completeness", "overall"),
        scenes=tuple(f"scan{k}" for k in dtu.TEST_SCANS),
    )


def _scans() -> Iterator[Benchmark]:
    columns = ("photos", "registered", "accuracy", "completeness", "f_score")
    yield Benchmark(
        "tanks",
        "Tanks and Temples, training scenes: F-score",
        "tanks",
        partial(Scans, distances=tanks_distances, crop=tanks_crop, refine=True),
        columns,
        scenes=tuple(tanks.THRESHOLDS),
    )
    yield Benchmark(
        "eth3d",
        "ETH3D, training scenes: F1 at 2 cm",
        "eth3d",
        partial(Scans, distances=_eth3d_distances, headline=1),
        columns,
    )


def _eth3d_distances(_: FrameSequence) -> tuple[float, ...]:
    return ETH3D_DISTANCES


BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _table()}
"""Every benchmark by its name."""
