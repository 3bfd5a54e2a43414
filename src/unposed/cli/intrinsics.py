"""`unposed intrinsics`."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from unposed.cli.app import COMMON, CommonOptions, app
from unposed.errors import UserError
from unposed.tasks.progress import reporter_for

if TYPE_CHECKING:
    from unposed.tasks.intrinsics import Intrinsics


@app.command
def intrinsics(
    photos: Annotated[Positional[tuple[str, ...]], arg(metavar="PHOTOS")],
    model: str = "auto",
    principal_point: Literal["centre", "free"] = "centre",
    frames: int | None = None,
    every: int | None = None,
    device: str = "auto",
    common: CommonOptions = COMMON,
) -> None:
    """Focal length and field of view of photos, how sure they are, and what EXIF says.

    Photos of the same size and EXIF focal length share one focal length. Give several that overlap: from a single photo
    only networks tell it.

    Examples:
        unposed intrinsics photos/
        unposed intrinsics photo.jpg --model dust3r-512-dpt
        unposed intrinsics photos/ --json > cameras.json

    Args:
        photos: A folder, photos, a glob pattern in quotes, or one video.
        model: Name (see `unposed models`), path to a released file, or auto.
        principal_point: Centre of the photo, or free: solved for too, with models that predict pointmaps.
        frames: Of a video: this many frames, evenly spread.
        every: Of a video: every n-th frame.
        device: auto, cpu, cuda, cuda:1 or mps.
        common: Options of every verb.
    """
    from rich.console import Console
    from rich.table import Table

    from unposed.tasks.intrinsics import estimate_intrinsics

    if not photos:
        raise UserError("name a folder, photos or a video: unposed intrinsics PHOTOS")
    results = estimate_intrinsics(
        list(photos),
        model=model,
        principal_point=principal_point,
        frames=frames,
        every=every,
        device=device,
        report=reporter_for(common.quiet),
    )
    if common.json:
        print(json.dumps({"photos": {result.name: result.facts() for result in results}}))
        return
    columns = ("photo", "focal px", "±", "field of view", "principal point", "EXIF focal", "against EXIF", "from")
    table = Table(*columns)
    for result in results:
        table.add_row(result.name, *described(result))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def described(result: "Intrinsics") -> tuple[str, ...]:
    """Cells of the table, after the name."""
    (across, down), (x, y) = result.fov_deg, result.principal_point
    off = result.exif_disagreement
    return (
        f"{result.focal:.1f}",
        f"{result.spread:.1%}",
        f"{across:.1f}° x {down:.1f}°",
        f"{x:.1f}, {y:.1f}",
        "-" if result.exif_focal is None else f"{result.exif_focal:.1f}",
        "-" if off is None else f"{off:+.1%}",
        result.method,
    )
