"""`unposed synth`."""

from dataclasses import asdict
from pathlib import Path

from unposed.cli.app import COMMON, CommonOptions, app, print_summary


@app.command
def synth(
    out: Path,
    photos: int = 10,
    kind: str = "tabletop",
    seed: int = 0,
    width: int = 640,
    height: int = 480,
    textures: Path | None = None,
    common: CommonOptions = COMMON,
) -> None:
    """Photos of a procedural scene with exact cameras and depth (gt.json), for tests and training.

    Args:
        out: New folder for the photos.
        photos: How many.
        kind: tabletop, room, street, terrain, ... (a wrong name lists them).
        seed: The same seed gives the same photos.
        width: In pixels.
        height: In pixels.
        textures: Folder of texture photos; procedural textures without it.
        common: Options of every verb.
    """
    from unposed.tasks.synth import synthesize

    result = synthesize(out, photos=photos, kind=kind, seed=seed, width=width, height=height, textures=textures)
    print_summary(asdict(result), common)
