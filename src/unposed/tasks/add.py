"""More photos for a scene of the sparse road: only pairs with a new photo are matched, then all is mapped again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unposed.errors import UserError
from unposed.io.pairs_cache import run_fingerprint
from unposed.io.photos import Photo, find_photos, make_views
from unposed.io.sources import Source
from unposed.models.base import PairModel
from unposed.scene import Scene
from unposed.tasks.inputs import as_model, model_identity
from unposed.tasks.mapping import CACHE, RUN, map_collection
from unposed.tasks.progress import Reporter, Silent
from unposed.tasks.reconstruct import could_share, gather, provenance_of


def add(
    scene: str | Path,
    photos: Source,
    *,
    model: str | Path | PairModel | None = None,
    device: str = "auto",
    report: Reporter | None = None,
) -> Scene:
    """The scene of a folder's photos and of new ones, in a frame of its own; nothing but the cache is written.

    Args:
        scene: folder that ``reconstruct`` with ``road="sparse"`` wrote.
        photos: the new ones: a folder, a glob pattern, a photo or a list; what the scene has already is skipped.
        model: as it was loaded for the scene, where that was no name or file.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        report: where progress and warnings go; nowhere by default.

    Raises:
        UserError: no such scene, one of its photos is gone, or there is no new photo.
    """
    report = report or Silent()
    scene = Path(scene)
    run = _read_run(scene)
    old = {row["path"]: row["name"] for row in run["photos"]}
    given = [photos] if isinstance(photos, str | Path) else list(photos)  # type: ignore[arg-type]
    found = find_photos(given)
    settled = frozenset(row["digest"] for row in run["photos"])
    new = [photo for photo in found.photos if photo.digest not in settled]
    if not new:
        raise UserError(f"{', '.join(map(str, given))} holds no photo that {scene} has not: give new ones.")
    joined = _named(find_photos(list(old)).photos, new, old)
    for skipped in found.skipped:
        report.say(f"skipped {skipped.name}: {skipped.reason}")
    asked = run["model"] if model is None else model
    loaded = as_model(asked, device, report)
    views = make_views(joined, loaded.image_rule)
    one_camera = run["one_camera"]
    mapped = map_collection(
        joined,
        views,
        loaded,
        run_fingerprint(model_identity(asked, loaded), loaded.image_rule, ()),
        scene,
        graph="auto",
        in_sequence=False,
        one_camera=(could_share(joined) if one_camera is None else one_camera) is not False,
        report=report,
        remembered={"model": run["model"], "one_camera": one_camera},
        settled=settled,
    )
    source = f"{scene} and {', '.join(map(str, given))}"
    return gather(mapped.scenes, views, provenance_of(found, source, "auto", mapped.pairs, mapped.seconds))


def _read_run(scene: Path) -> dict:
    try:
        return json.loads((scene / CACHE / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{scene} holds no collection that photos can join: make it with "
            f"`unposed reconstruct PHOTOS --road sparse --out {scene}`."
        ) from error


def _named(photos: Sequence[Photo], new: Sequence[Photo], names: Mapping[str, str]) -> list[Photo]:
    """The photos of the scene under their names (by path), then the new ones under names that are free."""
    named = [replace(photo, name=names[str(photo.path)]) for photo in photos]
    taken = set(names.values())
    for photo in new:
        parts = Path(str(photo.path)).parts
        name = next(name for k in range(1, len(parts) + 1) if (name := "/".join(parts[-k:])) not in taken)
        taken.add(name)
        named.append(replace(photo, name=name))
    return named
