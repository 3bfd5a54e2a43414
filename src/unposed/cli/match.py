"""`unposed match`."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from unposed.cli.app import COMMON, CommonOptions, app, print_summary
from unposed.errors import UserError
from unposed.tasks.progress import reporter_for


@app.command
def match(
    photos: Annotated[Positional[tuple[str, ...]], arg(metavar="PHOTOS")],
    out: Path = Path("matches.npz"),
    picture: Path | None = None,
    model: str = "auto",
    graph: str = "auto",
    verify: Literal["fundamental", "essential", "none"] = "fundamental",
    fine: bool = False,
    device: str = "auto",
    common: CommonOptions = COMMON,
) -> None:
    """Pixels of photos that show the same place.

    The suffix of OUT tells the format: .npz (two photos: points_a, points_b, confidence), .h5 (any number, for hloc;
    keypoints go to OUT-features.h5) or .db (any number, a COLMAP database that is ready for mapping).

    Examples:
        unposed match a.jpg b.jpg --out m.npz --picture m.png
        unposed match photos/ --out matches.h5
        unposed match photos/ --out database.db && colmap mapper --database_path database.db ...

    Args:
        photos: Two photos, or a folder, photos or a glob pattern in quotes.
        out: File for the matches.
        picture: Also draw two photos with lines between their matches: a .png or .jpg.
        model: Name (see `unposed models`), path to a released file, or auto.
        graph: Which pairs of many photos: auto, complete, swin-3, logwin-4, retrieval-20-10, ..., or a file of pairs.
        verify: Keep the matches that obey a fundamental matrix, an essential matrix, or all.
        fine: Of two photos larger than a network's view: match again between crops (slow without a GPU).
        device: auto, cpu, cuda, cuda:1 or mps.
        common: Options of every verb.
    """
    from unposed.tasks import match as task

    report = reporter_for(common.quiet)
    if out.suffix not in (".npz", ".h5", ".db"):
        raise UserError(f"matches are written as .npz, .h5 or .db, not {out.name}: change the suffix of --out.")
    if out.suffix == ".npz" or picture is not None:
        if len(photos) != 2:
            raise UserError("a .npz file and a picture are for two photos: name two, or give --out matches.h5 or .db.")
        if out.suffix != ".npz":
            raise UserError("a picture goes with the matches of two photos: give --out matches.npz.")
        if picture is not None:
            task.check_picture_name(picture)
        pair = task.match(photos[0], photos[1], model=model, verify=verify, fine=fine, device=device, report=report)
        pair.save(out)
        if picture is not None:
            pair.save_picture(picture)
        print_summary(task.summary(pair, [out] if picture is None else [out, picture]), common)
        return
    if fine:
        raise UserError("fine matches are for two photos (pairs would share no keypoints): give --out matches.npz.")
    if not photos:
        raise UserError("name a folder or photos: unposed match PHOTOS --out matches.h5")
    source = list(photos) if len(photos) > 1 else photos[0]
    found = task.match_photos(source, model=model, graph=graph, verify=verify, device=device, report=report)
    print_summary(task.summary(found, found.save(out)), common)
