"""`unposed pose`."""

from typing import Annotated, Literal

from tyro.conf import Positional, arg

from unposed.cli.app import COMMON, CommonOptions, app, print_summary
from unposed.tasks.progress import reporter_for


@app.command
def pose(
    a: Annotated[Positional[str], arg(metavar="A")],
    b: Annotated[Positional[str], arg(metavar="B")],
    model: str = "auto",
    method: Literal["auto", "essential", "procrustes", "pnp"] = "auto",
    focal_a: float | None = None,
    focal_b: float | None = None,
    device: str = "auto",
    common: CommonOptions = COMMON,
) -> None:
    """Where the camera of photo B stands and looks relative to that of photo A, and whether to believe it.

    b_from_a maps points of camera A (x right, y down, z forward) to camera B; its translation is in metres when scale
    is "metric", else of length 1.

    Examples:
        unposed pose a.jpg b.jpg
        unposed pose a.jpg b.jpg --json --focal-a 3100 --focal-b 3100
        unposed pose a.jpg b.jpg --model reloc3r-512

    Args:
        a: First photo.
        b: Second photo.
        model: Name (see `unposed models`), path to a released file, or auto.
        method: essential (epipolar geometry of matches), procrustes (between the pointmaps of both orders), pnp
            (pixels of B against their points in camera A), or auto; models that regress poses take only auto.
        focal_a: Focal length of photo A in its pixels, if you know it.
        focal_b: Focal length of photo B in its pixels.
        device: auto, cpu, cuda, cuda:1 or mps.
        common: Options of every verb.
    """
    from unposed.tasks.pose import described, relative_pose, summary

    found = relative_pose(
        a,
        b,
        model=model,
        method=method,
        focal_a=focal_a,
        focal_b=focal_b,
        device=device,
        report=reporter_for(common.quiet),
    )
    print_summary(summary(found) if common.json else described(found), common)
