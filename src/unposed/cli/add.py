"""`unposed add`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unposed.cli.app import COMMON, CommonOptions, app, print_summary
from unposed.errors import UserError
from unposed.tasks.progress import reporter_for


@app.command
def add(
    scene: Annotated[Positional[Path], arg(metavar="SCENE")],
    photos: Annotated[Positional[tuple[str, ...]], arg(metavar="PHOTOS")],
    device: str = "auto",
    common: CommonOptions = COMMON,
) -> None:
    """More photos for a scene that `unposed reconstruct --road sparse` made; its own pairs are not matched again.

    Example:
        unposed add castle more_photos/

    Args:
        scene: Folder of the scene; it is written anew.
        photos: A folder, photos, or a glob pattern in quotes.
        device: auto, cpu, cuda, cuda:1 or mps.
        common: Options of every verb.
    """
    from unposed.tasks.add import add as run
    from unposed.tasks.outputs import summary, write_outputs

    if not photos:
        raise UserError("name the scene and the new photos: unposed add SCENE PHOTOS")
    result = run(scene, list(photos), device=device, report=reporter_for(common.quiet))
    write_outputs(result, scene)
    print_summary(summary(result, scene), common)
