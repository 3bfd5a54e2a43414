"""Numbers that papers report, by benchmark: DUSt3R (Wang et al., CVPR 2024), sections 4.1 to 4.5."""

from collections.abc import Mapping
from dataclasses import dataclass

MEAN = "mean"
"""The row of a whole data set."""


@dataclass(frozen=True)
class Published:
    """One row of a paper's table in our columns."""

    method: str
    row: str
    """Name of a sequence or scene, or ``MEAN``."""
    values: Mapping[str, float]


def _places(method: str, names: str, numbers: str) -> list[Published]:
    """Median errors "cm/deg" by scene."""
    rows = [pair.split("/") for pair in numbers.split()]
    return [
        Published(method, name, {"median_cm": float(cm), "median_deg": float(deg)})
        for name, (cm, deg) in zip(names.split(), rows, strict=True)
    ]


def _mean(columns: str, *rows: tuple[str, tuple[float, ...]]) -> list[Published]:
    names = columns.split()
    return [Published(method, MEAN, dict(zip(names, values, strict=True))) for method, values in rows]


_7SCENES = "chess fire heads office pumpkin redkitchen stairs"
_CAMBRIDGE = "ShopFacade OldHospital KingsCollege StMarysChurch GreatCourt"
_POSES = "RRA@15 RTA@15 mAA@30"
_DEPTH = "AbsRel delta1"
_KEY_DEPTH = "rel tau"

PUBLISHED: dict[str, list[Published]] = {
    "7scenes": [
        *_places("DUSt3R 224", _7SCENES, "3/0.96 3/1.02 1/1.00 4/1.04 5/1.26 4/1.36 21/4.08"),
        *_places("DUSt3R 512", _7SCENES, "3/0.97 3/0.95 2/1.37 3/1.01 4/1.14 4/1.34 11/2.84"),
        *_places("DUSt3R 512, focal unknown", _7SCENES, "5/1.08 5/1.18 4/1.33 6/1.05 7/1.25 6/1.37 26/3.56"),
    ],
    "cambridge": [
        *_places("DUSt3R 224", _CAMBRIDGE, "9/0.38 26/0.46 20/0.32 11/0.38 36/0.24"),
        *_places("DUSt3R 512", _CAMBRIDGE, "6/0.26 17/0.33 11/0.20 7/0.24 38/0.16"),
        *_places("DUSt3R 512, focal unknown", _CAMBRIDGE, "64/0.97 151/0.88 102/0.88 79/1.46 245/1.08"),
    ],
    "co3d-pose-10": _mean(
        _POSES,
        ("DUSt3R 512, PnP", (94.3, 88.4, 77.2)),
        ("DUSt3R 512, global alignment", (96.2, 86.8, 76.7)),
        ("PoseDiffusion", (80.5, 79.8, 66.5)),
        ("COLMAP + SuperPoint + SuperGlue", (36.1, 27.3, 25.3)),
        ("PixSfM", (33.7, 32.9, 30.1)),
    ),
    "co3d-pose-5": _mean(_POSES, ("DUSt3R 512, global alignment", (95.5, 86.7, 76.5))),
    "co3d-pose-3": _mean(_POSES, ("DUSt3R 512, global alignment", (95.3, 88.3, 77.5))),
    "re10k-pose-10": _mean(
        "mAA@30",
        ("DUSt3R 512, PnP", (61.2,)),
        ("DUSt3R 512, global alignment", (67.7,)),
        ("PoseDiffusion", (48.0,)),
        ("COLMAP + SuperPoint + SuperGlue", (45.2,)),
        ("PixSfM", (49.4,)),
    ),
    "re10k-pose-5": _mean("mAA@30", ("DUSt3R 512, global alignment", (67.4,))),
    "re10k-pose-3": _mean("mAA@30", ("DUSt3R 512, global alignment", (69.5,))),
    "kitti-depth": _mean(_DEPTH, ("DUSt3R 224", (0.1697, 0.7789)), ("DUSt3R 512", (0.1074, 0.8660))),
    "bonn-depth": _mean(_DEPTH, ("DUSt3R 224", (0.1105, 0.8995)), ("DUSt3R 512", (0.0808, 0.9356))),
    "nyu-depth": _mean(_DEPTH, ("DUSt3R 224", (0.1028, 0.8892)), ("DUSt3R 512", (0.0650, 0.9409))),
    "tum-depth": _mean(_DEPTH, ("DUSt3R 224", (0.1761, 0.7544)), ("DUSt3R 512", (0.1417, 0.7989))),
    "kitti-key-depth": _mean(_KEY_DEPTH, ("DUSt3R 224", (15.39, 26.69)), ("DUSt3R 512", (9.11, 39.49))),
    "scannet-video-key-depth": _mean(_KEY_DEPTH, ("DUSt3R 224", (5.86, 50.84)), ("DUSt3R 512", (4.93, 60.20))),
    "eth3d-key-depth": _mean(_KEY_DEPTH, ("DUSt3R 224", (4.71, 61.74)), ("DUSt3R 512", (2.91, 76.91))),
    "dtu-key-depth": _mean(_KEY_DEPTH, ("DUSt3R 224", (2.76, 77.32)), ("DUSt3R 512", (3.52, 69.33))),
    "dtu": _mean("accuracy completeness overall", ("DUSt3R 512", (2.677, 0.805, 1.741))),
}
PUBLISHED["cambridge-dust3r"] = PUBLISHED["cambridge"]
for _same, _as in (("co3d-dust3r", "co3d"), ("re10k-chunks", "re10k")):
    PUBLISHED |= {f"{_same}-pose-{_n}": PUBLISHED[f"{_as}-pose-{_n}"] for _n in (10, 5, 3)}
