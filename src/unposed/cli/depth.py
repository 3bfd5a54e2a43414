"""`unposed depth`."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from unposed.cli.app import COMMON, CommonOptions, app, print_summary
from unposed.errors import UserError
from unposed.tasks.progress import reporter_for


@app.command
def depth(
    photos: Annotated[Positional[tuple[str, ...]], arg(metavar="PHOTOS")],
    out: Path = Path("depth"),
    formats: tuple[Literal["png", "exr", "ply", "all"], ...] = (),
    model: str = "auto",
    alone: bool = False,
    frames: int | None = None,
    every: int | None = None,
    device: str = "auto",
    common: CommonOptions = COMMON,
) -> None:
    """Depth of every pixel, at the size of the photos; several photos of one place are solved together.

    Writes into OUT, for every photo, STEM.npz (depth, confidence, intrinsics, metric) and STEM_colour.png, and the
    formats asked for: STEM_depth.png (16 bit, its unit in STEM_depth.json), STEM.exr, STEM.ply (coloured points).
    Models of single photos (moge-...) take every photo by itself; those with normals also write STEM_normals.png.

    Examples:
        unposed depth photo.jpg --out depth
        unposed depth photos/ --out depth --formats exr ply
        unposed depth clip.mp4 --every 10 --alone --out depth
        unposed depth photos/ --model moge-2-vitl-normal --out depth

    Args:
        photos: A folder, photos, a glob pattern in quotes, or one video.
        out: Folder for the results.
        formats: Further kinds of files: png, exr, ply, or all.
        model: Name (see `unposed models`), path to a released file, or auto.
        alone: Treat every photo by itself, for photos that do not show one place.
        frames: Of a video: this many frames, evenly spread.
        every: Of a video: every n-th frame.
        device: auto, cpu, cuda, cuda:1 or mps.
        common: Options of every verb.
    """
    from unposed.tasks.depth import FORMATS, write_depths

    if not photos:
        raise UserError("name a folder, photos or a video: unposed depth PHOTOS --out OUT")
    written = write_depths(
        list(photos),
        out,
        formats=FORMATS if "all" in formats else [name for name in formats if name != "all"],
        model=model,
        alone=alone,
        frames=frames,
        every=every,
        device=device,
        report=reporter_for(common.quiet),
    )
    print_summary(written.summary() | ({"photos": written.photos} if common.json else {}), common)
