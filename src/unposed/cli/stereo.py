"""`unposed stereo`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unposed.cli.app import COMMON, CommonOptions, app, print_summary
from unposed.tasks.progress import reporter_for


@app.command
def stereo(
    left: Annotated[Positional[str], arg(metavar="LEFT")],
    right: Annotated[Positional[str], arg(metavar="RIGHT")],
    out: Path = Path("stereo.npz"),
    picture: Path | None = None,
    model: str = "auto",
    focal: float | None = None,
    baseline: float | None = None,
    doffs: float = 0.0,
    largest: float | None = None,
    device: str = "auto",
    common: CommonOptions = COMMON,
) -> None:
    """Disparity, confidence and depth of the left photo of a rectified stereo pair.

    The suffix of OUT tells the format: .npz (disparity, confidence, and depth where focal and baseline are given), .pfm
    (disparity as Middlebury has it) or .png (16 bit, disparity * 256, as KITTI has it).

    Examples:
        unposed stereo left.png right.png --out s.npz --picture s.png
        unposed stereo left.png right.png --focal 718.9 --baseline 0.54 --out s.npz
        unposed stereo left.png right.png --model crocostereo.pth --out s.pfm

    Args:
        left: The left photo.
        right: The right photo, of the same size.
        out: File for the result.
        picture: Also write the disparity in false colours: a .png or .jpg.
        model: classic, the path of a released CroCo-Stereo file, or auto.
        focal: Focal length in pixels of the photos; with the baseline it gives depth.
        baseline: Distance between the cameras; depth has its unit.
        doffs: Column of the right principal point less that of the left one, where they differ.
        largest: Largest disparity to look for, in pixels; found from the photos by default.
        device: auto, cpu, cuda, cuda:1 or mps.
        common: Options of every verb.
    """
    from unposed.tasks import pictures
    from unposed.tasks import stereo as task

    pictures.check_outputs(out, task.SUFFIXES, picture, (left, right))
    result = task.stereo(
        left,
        right,
        model=model,
        focal=focal,
        baseline=baseline,
        doffs=doffs,
        largest=largest,
        device=device,
        report=reporter_for(common.quiet),
    )
    print_summary(task.summary(result, pictures.save(result, out, picture)), common)
