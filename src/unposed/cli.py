"""The command line: one typed function per verb, no logic.

Exit status: 0 done, 2 something you can mend (one sentence says what), 130 interrupted.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from unposed import __version__
from unposed.errors import UserError
from unposed.tasks.progress import reporter_for

app = tyro.extras.SubcommandApp()


@dataclass(frozen=True)
class Common:
    """Options that every verb understands."""

    quiet: bool = False
    """Warnings and results only, no progress."""
    json: bool = False
    """Print the summary as one JSON object on standard output."""


COMMON = Common()
CommonOptions = Annotated[Common, arg(name="")]


@app.command
def reconstruct(
    photos: Annotated[Positional[tuple[str, ...]], arg(metavar="PHOTOS")],
    out: Path = Path("out"),
    model: str = "auto",
    graph: str = "auto",
    frames: int | None = None,
    every: int | None = None,
    cameras: Path | None = None,
    one_camera: bool | None = None,
    refine: bool = True,
    clean: bool = True,
    device: str = "auto",
    open: bool = False,
    common: CommonOptions = COMMON,
) -> None:
    """Cameras, depth and points from photos that nobody calibrated.

    Writes into OUT: scene.json + maps.safetensors (the scene, for `unposed view`), scene.glb, scene.ply, colmap/,
    transforms.json (nerfstudio) and preview.png. An interrupted run continues when the same command is given again.

    Examples:
        unposed reconstruct photos/ --out castle
        unposed reconstruct clip.mp4 --frames 40 --out clip
        unposed reconstruct a.jpg b.jpg c.jpg --model dust3r-512-dpt --device cuda

    Args:
        photos: A folder, photos, a glob pattern in quotes, or one video.
        out: Folder for the results.
        model: Name (see `unposed models`), path to a released file, or auto.
        graph: Which pairs to look at: auto, complete, swin-3, logwin-4, oneref-0, or a text file of photo pairs.
        frames: Of a video: this many frames, evenly spread.
        every: Of a video: every n-th frame.
        cameras: Known cameras to keep: a COLMAP model folder, or a transforms.json.
        one_camera: Whether all photos share one focal length. By default: when they have the same size.
        refine: Adjust the cameras on matched tracks (bundle adjustment); kept only if it is better.
        clean: Lower the confidence of points that stand in front of what other views see.
        device: auto, cpu, cuda, cuda:1 or mps.
        open: Look at the scene in the browser afterwards.
        common: Options of every verb.
    """
    from unposed.tasks.known import read_known
    from unposed.tasks.outputs import summary, write_outputs
    from unposed.tasks.reconstruct import reconstruct as run

    if not photos:
        raise UserError("name a folder, photos or a video: unposed reconstruct PHOTOS --out OUT")
    report = reporter_for(common.quiet)
    scene = run(
        list(photos) if len(photos) > 1 else photos[0],
        model=model,
        out=out,
        graph=graph,
        frames=frames,
        every=every,
        known=read_known(cameras),
        one_camera=one_camera,
        bundle=refine,
        clean=clean,
        device=device,
        report=report,
    )
    write_outputs(scene, out)
    _print(summary(scene, out), common)
    if open:
        view(out, common=common)


@app.command
def view(scene: Positional[Path], port: int = 8080, browser: bool = True, common: CommonOptions = COMMON) -> None:
    """Look at a scene in the browser: points, cameras with their photos, depth, downloads.

    Args:
        scene: Folder that `unposed reconstruct` wrote.
        port: Port on this machine.
        browser: Open a browser window.
        common: Options of every verb.
    """
    from unposed.scene import Scene
    from unposed.viewer import view_scene

    server = view_scene(Scene.load(scene), port=port, open_browser=browser)
    reporter_for(common.quiet).say(f"http://localhost:{server.get_port()} - Ctrl-C ends")
    server.sleep_forever()


@app.command
def models(common: CommonOptions = COMMON) -> None:
    """Every model by name: system, size, licence of its weights, and whether it is on this machine.

    Args:
        common: Options of every verb.
    """
    from rich.console import Console
    from rich.table import Table

    from unposed.models.registry import ListedModel, list_models

    rows = list_models()
    if common.json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    table = Table(*(field.replace("_", " ") for field in ListedModel._fields))
    for row in rows:
        table.add_row(*(("yes" if value else "no") if isinstance(value, bool) else str(value) for value in row))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


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
    _print(asdict(result), common)


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
    from unposed.train.loop import train_command

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
    _print(asdict(summary), common)


@app.command
def demo(out: Path = Path("demo"), common: CommonOptions = COMMON) -> None:
    """Reconstruct the bundled example photos and say where to look.

    Args:
        out: Folder for the results.
        common: Options of every verb.
    """
    with as_file(files("unposed") / "assets" / "demo") as photos:
        reconstruct((str(photos),), out=out, common=common)


def _print(summary: dict, common: Common) -> None:
    """The result on standard output: JSON for scripts, aligned lines for people."""
    if common.json:
        print(json.dumps(summary, default=str))
        return
    width = max(map(len, summary))
    for key, value in summary.items():
        print(f"{key.replace('_', ' '):{width}}  {value}")


def main() -> None:
    """Entry point: errors a user can mend end in one sentence and status 2."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads sleep, which busy machines need
    if sys.argv[1:] in (["--version"], ["-V"]):
        print(f"unposed {__version__}")
        return
    try:
        app.cli(prog="unposed", description="3D from photos nobody calibrated.")
    except UserError as error:
        print(f"unposed: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("unposed: interrupted; the same command again continues where this one stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
