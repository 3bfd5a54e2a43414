"""`unposed reconstruct` and `unposed demo`."""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from unposed.cli.app import COMMON, CommonOptions, app, print_summary
from unposed.cli.view import view
from unposed.errors import UserError
from unposed.tasks.progress import reporter_for


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
    road: Literal["auto", "dense", "sparse"] = "auto",
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
        graph: Which pairs to look at: auto, complete, swin-3, logwin-4, oneref-0, retrieval-20-10, or a file of pairs.
        frames: Of a video: this many frames, evenly spread.
        every: Of a video: every n-th frame.
        cameras: Known cameras to keep: a COLMAP model folder, or a transforms.json.
        one_camera: Whether all photos share one focal length. By default: when they have the same size.
        refine: Adjust the cameras on matched tracks (bundle adjustment); kept only if it is better.
        clean: Lower the confidence of points that stand in front of what other views see.
        road: dense (depth of every pair, then alignment), sparse (by matches: one mapping and depth afterwards with
            mini and classic, MASt3R-SfM's alignment with networks), or auto: dense up to 30 photos and with networks.
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
        road=road,
        device=device,
        report=report,
    )
    write_outputs(scene, out)
    print_summary(summary(scene, out), common)
    if open:
        view(out, common=common)


@app.command
def demo(out: Path = Path("demo"), common: CommonOptions = COMMON) -> None:
    """Reconstruct the bundled example photos and say where to look.

    Args:
        out: Folder for the results.
        common: Options of every verb.
    """
    with as_file(files("unposed") / "assets" / "demo") as photos:
        reconstruct((str(photos),), out=out, common=common)
