"""`unposed flow`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unposed.cli.app import COMMON, CommonOptions, app, print_summary


@app.command
def flow(
    a: Annotated[Positional[str], arg(metavar="A")],
    b: Annotated[Positional[str], arg(metavar="B")],
    out: Path = Path("flow.npz"),
    picture: Path | None = None,
    model: str = "auto",
    device: str = "auto",
    common: CommonOptions = COMMON,
) -> None:
    """Optical flow: where every pixel of photo A is in photo B, and how sure that is.

    The suffix of OUT tells the format: .npz (flow: height x width x 2, x then y, pixels; confidence), .flo (Middlebury,
    Sintel) or .png (16 bit, KITTI).

    Examples:
        unposed flow frame_1.png frame_2.png --out f.npz --picture f.png
        unposed flow frame_1.png frame_2.png --model crocoflow.pth --out f.flo

    Args:
        a: The photo whose pixels are followed.
        b: The photo in which they are looked for, of the same size.
        out: File for the result.
        picture: Also write the flow in the colours of the wheel: a .png or .jpg.
        model: classic, the path of a released CroCo-Flow file, or auto.
        device: auto, cpu, cuda, cuda:1 or mps.
        common: Options of every verb.
    """
    from unposed.tasks import flow as task
    from unposed.tasks import pictures

    pictures.check_outputs(out, task.SUFFIXES, picture, (a, b))
    result = task.flow(a, b, model=model, device=device)
    print_summary(task.summary(result, pictures.save(result, out, picture)), common)
