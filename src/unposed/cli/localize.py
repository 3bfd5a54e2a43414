"""`unposed localize`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unposed.cli.app import COMMON, CommonOptions, app, print_summary
from unposed.errors import UserError
from unposed.tasks.progress import reporter_for


@app.command
def localize(
    queries: Annotated[Positional[tuple[str, ...]], arg(metavar="QUERY")],
    map: Annotated[Path, arg(name="in", metavar="MAP")],
    images: Path | None = None,
    focal: float | None = None,
    model: str = "auto",
    top_k: int = 10,
    fine: bool = False,
    out: Path | None = None,
    device: str = "auto",
    common: CommonOptions = COMMON,
) -> None:
    """Where a photo, or each of several, was taken in a map of photos whose cameras are known.

    The map is a scene (what `unposed reconstruct` wrote), a COLMAP model, or a transforms.json with its photos. A query
    that cannot be placed says so: reliable is false, world_from_camera is null, and reason tells why.

    With --out: localize.json, poses.txt (name qw qx qy qz tx ty tz, camera from world; the placed queries) and
    submission.txt (the same with every query, as the Aachen and InLoc benchmarks want it). An interrupted run continues
    when the same command is given again.

    Examples:
        unposed localize phone.jpg --in castle --json
        unposed localize queries/ --in colmap/sparse/0 --images colmap/images --out poses
        unposed localize phone.jpg --in nerf/transforms.json --focal 1450

    Args:
        queries: One photo; or a folder, several photos, a glob pattern in quotes, or one video.
        map: Folder of a scene, of a COLMAP model, or of a transforms.json, or that file.
        images: Folder of the map's photos, where they are not beside it.
        focal: Focal length of the queries in pixels of the original photos. By default from EXIF, from the map where
            it holds photos of the same size, or estimated.
        model: Name (see `unposed models`), path to a released file, or auto.
        top_k: How many photos of the map a query is matched with, the most similar ones.
        fine: Match again between crops of photos that are larger than a network's view (slow without a GPU).
        out: Folder for the results.
        device: auto, cpu, cuda, cuda:1 or mps.
        common: Options of every verb.
    """
    from unposed.tasks.localize import brief, summary
    from unposed.tasks.localize import localize as run

    if not queries:
        raise UserError("name a photo or a folder of them: unposed localize QUERY --in MAP")
    result = run(
        list(queries) if len(queries) > 1 else queries[0],
        map,
        images=images,
        focal=focal,
        model=model,
        top_k=top_k,
        fine=fine,
        out=out,
        device=device,
        report=reporter_for(common.quiet),
    )
    print_summary(summary(result) if common.json else brief(result), common)
