"""`unposed train`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from unposed.cli.app import COMMON, CommonOptions, app, print_summary
from unposed.tasks.progress import reporter_for


@app.command
def train(
    recipe: Positional[Literal["mini", "composed", "dust3r"]],
    out: Path,
    minutes: float = 9.0,
    resume: Path | None = None,
    begin: float = 0.0,
    textures: Path | None = None,
    photos: Path | None = None,
    side: int | None = None,
    tiny: bool = False,
    export: Path | None = None,
    device: str = "auto",
    common: CommonOptions = COMMON,
) -> None:
    """Train a model on procedural scenes, or on your own posed photos, by the clock.

    Args:
        recipe: What to train.
        out: Folder for checkpoints, the log and a picture of some predictions.
        minutes: When to stop; the learning rate ends at zero then.
        resume: Folder of an earlier run to go on from.
        begin: Share of the curriculum to skip, 0 to 1.
        textures: Folder of texture photos; procedural textures without it.
        photos: Folder of posed photo sets (gt.json) to train on instead of procedural scenes.
        side: One size of square images in pixels, in place of the curriculum.
        tiny: A very small network, for trying things out on a CPU.
        export: Also write the weights as one file that `--model` takes.
        device: auto, cpu or cuda.
        common: Options of every verb.
    """
    from unposed.train.checkpoint import export_checkpoint
    from unposed.train.options import train_command

    report = reporter_for(common.quiet)
    summary = train_command(
        recipe,
        minutes,
        out,
        resume=resume,
        begin=begin,
        textures=textures,
        photos=photos,
        side=side,
        tiny=tiny,
        device=device,
        on_record=None if common.quiet else lambda record: report.say(json.dumps(record)),
    )
    if export is not None:
        export_checkpoint(out, export)
    print_summary(asdict(summary), common)
