"""Where a photo was taken, in a map of photos whose cameras are known (DUSt3R, section 4.1)."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from unposed.errors import UserError
from unposed.io.atomic import atomic_write
from unposed.io.photos import Photo
from unposed.io.query_poses import write_query_poses, write_submission
from unposed.models.base import PairModel
from unposed.scene import Scene
from unposed.tasks.inputs import PhotosLike, as_model, as_photo, as_photos, is_one_photo, model_identity
from unposed.tasks.localizer import Localisation, Localizer
from unposed.tasks.match import check_fine
from unposed.tasks.posed_map import read_map
from unposed.tasks.progress import Reporter, Silent, track

TOP_K = 10
"""References that a query is matched with; of a larger map the most similar ones."""
_FORMAT = 1
_UNITS = {True: "metres", False: "up to scale", None: "units of the map"}
_ELSEWHERE = ("world_from_camera", "intrinsics", "references")
_PLAIN = tuple(field.name for field in fields(Localisation) if field.name not in _ELSEWHERE)


def localize(
    query: PhotosLike,
    map: Scene | str | Path,
    *,
    images: str | Path | None = None,
    focal: float | None = None,
    model: str | Path | PairModel = "auto",
    top_k: int = TOP_K,
    fine: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    report: Reporter | None = None,
) -> Localisation | list[Localisation]:
    """The camera of a photo, or of each of several, in the world of a map.

    Args:
        query: one photo (file, Pillow picture or array), or several: a folder, a glob pattern, a video, a list.
        map: a scene or its folder, a COLMAP model folder, or a ``transforms.json``.
        images: folder of the map's photos, where they are not beside it.
        focal: focal length of the queries in pixels of the original photos; by default from EXIF, from the map where
            a photo of the same size is in it, or estimated.
        model: a registered name, a path to a released file, a loaded model, or ``auto``.
        top_k: how many photos of the map a query is matched with.
        fine: match again between crops of photos larger than the model's view, see ``match``.
        out: folder for the results. With it, finished queries outlive an interruption.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        report: where progress and warnings go; nowhere by default.

    Returns:
        One result for one photo; for several a list, in their order.

    Raises:
        UserError: a query, map or model that cannot be used.
    """
    report = report or Silent()
    if top_k < 1:
        raise UserError(f"A query needs at least one reference, not {top_k}; give a larger --top-k.")
    if focal is not None and not (math.isfinite(focal) and focal > 0):
        raise UserError(f"A focal length of {focal:g} pixels is impossible; give a positive --focal.")
    if is_one_photo(query):
        photos = [as_photo(query, "query.png")]  # type: ignore[arg-type]
    else:
        found = as_photos(query)
        for skipped in found.skipped:
            report.say(f"skipped {skipped.name}: {skipped.reason}")
        photos = found.photos
    posed_map, loaded = read_map(map, images, report), as_model(model, device, report)
    if fine:
        check_fine(loaded)
    localizer = Localizer(posed_map, loaded, top_k=top_k, focal=focal, fine=fine)
    results = []
    cache = None if out is None else _Finished(Path(out) / "queries", _run_fingerprint(localizer, model))
    for photo in track(report, photos, len(photos), f"{localizer.model.name}: queries"):
        result = None if cache is None else cache.get(photo)
        if result is None:
            result = localizer.locate(photo)
            if cache is not None:
                cache.put(photo, result)
        results.append(result)
    if out is not None:
        write_localisations(Path(out), results)
    return results[0] if is_one_photo(query) else results


def describe(result: Localisation) -> dict[str, Any]:
    """A result as plain values for JSON; ``world_from_camera`` is null where the photo was not placed."""
    pose = result.world_from_camera
    return {
        "name": result.name,
        "reliable": result.reliable,
        "reason": result.reason,
        "world_from_camera": None if pose is None else pose.tolist(),
        "intrinsics": result.intrinsics.tolist(),
        "width": result.width,
        "height": result.height,
        "inliers": result.inliers,
        "rotation_sigma_deg": result.rotation_sigma,
        "position_sigma": result.position_sigma,
        "units": _UNITS[result.metric],
        "focal_source": result.focal_source,
        "references": list(result.references),
        "seconds": round(result.seconds, 3),
    }


def summary(results: Localisation | Sequence[Localisation]) -> dict[str, Any]:
    """One result for JSON, or several under ``queries`` with how many were placed."""
    if isinstance(results, Localisation):
        return describe(results)
    placed = sum(result.reliable for result in results)
    return {"placed": placed, "of": len(results), "queries": [describe(result) for result in results]}


def brief(results: Localisation | Sequence[Localisation]) -> dict[str, Any]:
    """The same for people to read: several results take a line each."""
    if isinstance(results, Localisation):
        return describe(results)
    return {"placed": f"{sum(result.reliable for result in results)} of {len(results)}"} | {
        result.name: _line(result) for result in results
    }


def _line(result: Localisation) -> str:
    if result.world_from_camera is None:
        return f"not placed: {result.reason}"
    position = ", ".join(f"{value:.4g}" for value in result.world_from_camera[:3, 3].tolist())
    return (
        f"at ({position}) +- {result.position_sigma:.2g} {_UNITS[result.metric]}, "
        f"+- {result.rotation_sigma:.2g} degrees, {result.inliers} inliers"
    )


def write_localisations(out: Path, results: Sequence[Localisation]) -> None:
    """Write ``localize.json``, ``poses.txt`` (placed queries) and ``submission.txt`` (all, for the benchmarks).

    Raises:
        UserError: the folder cannot be written.
    """
    with atomic_write(out / "localize.json") as temporary:
        temporary.write_text(json.dumps(summary(results), indent=1))
    poses = {result.name: result.world_from_camera for result in results}
    write_query_poses(out / "poses.txt", {name: pose for name, pose in poses.items() if pose is not None})
    write_submission(out / "submission.txt", poses)


def _run_fingerprint(localizer: Localizer, asked: str | Path | PairModel) -> str:
    """Names everything that results depend on besides the query."""
    parts = [
        _FORMAT,
        model_identity(asked, localizer.model),
        localizer.map.fingerprint,
        localizer.top_k,
        localizer.focal,
        localizer.fine,
    ]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


class _Finished:
    """Results of earlier queries, one file each; those of another map, model or setting do not count."""

    def __init__(self, directory: Path, fingerprint: str) -> None:
        self._directory, self._fingerprint = directory, fingerprint

    def get(self, photo: Photo) -> Localisation | None:
        """The result of an earlier run for the same photo; None where there is none, or a damaged one."""
        try:
            text = json.loads(self._path(photo).read_text())
            if text.pop("run") != self._fingerprint:
                return None
            pose = text.pop("world_from_camera")
            return Localisation(
                **{key: text[key] for key in _PLAIN},
                world_from_camera=None if pose is None else torch.tensor(pose, dtype=torch.float64).reshape(4, 4),
                intrinsics=torch.tensor(text["intrinsics"], dtype=torch.float64).reshape(3, 3),
                references=tuple(text["references"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
            return None

    def put(self, photo: Photo, result: Localisation) -> None:
        """Keep a result.

        Raises:
            UserError: the folder cannot be written.
        """
        text = {key: getattr(result, key) for key in _PLAIN}
        text |= {"run": self._fingerprint, "references": result.references, "intrinsics": result.intrinsics.tolist()}
        pose = result.world_from_camera
        text["world_from_camera"] = None if pose is None else pose.tolist()
        with atomic_write(self._path(photo)) as temporary:
            temporary.write_text(json.dumps(text))

    def _path(self, photo: Photo) -> Path:
        name = hashlib.blake2b(photo.name.encode(), digest_size=8).hexdigest()
        return self._directory / f"{name}-{photo.digest}.json"
