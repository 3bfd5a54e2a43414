"""`unposed train`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from unposed.cli.app import COMMON, CommonOptions, app, print_summary
from unposed.tasks.progress import reporter_for
from unposed.train.stage_options import StageOptions

_PUBLISHED = StageOptions()


@app.command
def train(
    recipe: Positional[Literal["mini", "composed", "dust3r"]],
    out: Path,
    minutes: float | None = None,
    steps: int | None = None,
    resume: Path | None = None,
    begin: float = 0.0,
    textures: Path | None = None,
    photos: Path | None = None,
    side: int | None = None,
    tiny: bool = False,
    export: Path | None = None,
    tensorboard: bool = False,
    device: str = "auto",
    published: Annotated[StageOptions, arg(name="")] = _PUBLISHED,
    common: CommonOptions = COMMON,
) -> None:
    """Train a model on procedural scenes, on your own posed photos, or on data sets; by the clock or by steps.

    On several GPUs: `torchrun --nproc-per-node 8 -m unposed.cli train ...`.

    Args:
        recipe: What to train.
        out: Folder for checkpoints, the log and a picture of some predictions.
        minutes: When to stop; the learning rate ends then. 9, if nothing else says when.
        steps: Stop after so many steps; the same command again goes on exactly where a killed run stopped.
        resume: Folder of an earlier run to go on from.
        begin: Share of the curriculum to skip, 0 to 1.
        textures: Folder of texture photos; procedural textures without it.
        photos: Folder of posed photos (gt.json or a COLMAP model) to train on instead of procedural scenes.
        side: One size of square images in pixels, in place of the curriculum.
        tiny: A very small network, for trying things out on a CPU.
        export: Also write the weights as one file that `--model` takes: .safetensors, or DUSt3R's .pth.
        tensorboard: Also log for TensorBoard, in the folder `tensorboard` of the run.
        device: auto, cpu or cuda.
        published: DUSt3R's published training.
        common: Options of every verb.
    """
    from unposed.train.distributed import is_main_process
    from unposed.train.export import export_checkpoint
    from unposed.train.options import train_command

    report = reporter_for(common.quiet)
    if minutes is None and steps is None and published.stage is None:
        minutes = 9.0
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
        steps=steps,
        published=published,
        tensorboard=tensorboard,
        on_record=None if common.quiet else lambda record: report.say(json.dumps(record)),
    )
    if is_main_process():
        if export is not None:
            export_checkpoint(out, export)
        print_summary(asdict(summary), common)
