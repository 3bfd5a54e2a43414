"""Localisation benchmarks in the layouts of DUSt3R's tool: maps as COLMAP text or scans, queries as kapture CSV.

kapture: ``sensors/sensors.txt`` (cameras), ``sensors/records_camera.txt`` (time, camera, photo),
``sensors/trajectories.txt`` (world to camera, quaternion w first, where poses are public), photos in
``sensors/records_data/``. Lens distortion is left out of all cameras here.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.io import loadmat
from torch import Tensor

from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, Landmarks, Relocalisation
from unposed.evaluation.datasets.colmap_text import TextCamera, TextModel
from unposed.evaluation.datasets.files import (
    LazyPhoto,
    first_existing,
    listed,
    require_file,
    require_folder,
    subfolders,
    text_lines,
)
from unposed.evaluation.datasets.poses import calibration, pose_from_quaternion, pose_matrix, posed_camera
from unposed.geometry.cameras import pixel_grid
from unposed.geometry.transforms import invert_rigid, transform_points


def read_cambridge(root: Path, scenes: Sequence[str] | None = None) -> list[Relocalisation]:
    """Cambridge Landmarks as DUSt3R's tool takes it, with sparse 3D of the map and the published pair lists.

    ``mapping/<Scene>/colmap/reconstruction/*.txt``, ``kapture/<Scene>/query``, ``<Scene>/pairsfile/query/*.txt``;
    photos in ``<Scene>/`` or ``kapture/<Scene>/{mapping,query}/sensors/records_data/``.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = Path(root)
    places = []
    for folder in subfolders(root / "mapping", scenes, "COLMAP maps of Cambridge Landmarks", "colmap/reconstruction"):
        name = folder.name
        photos = [root / name, root / "images" / name, root / "kapture" / name / "mapping" / "sensors" / "records_data"]
        references = _map(TextModel(folder / "colmap" / "reconstruction"), photos)
        queries = read_records(root / "kapture" / name / "query", root / name)
        places.append(Relocalisation(name, references, queries, published_pairs(root / name)))
    return places


def read_aachen(root: Path, scenes: Sequence[str] | None = None) -> list[Relocalisation]:
    """Aachen Day-Night v1.1: "day" and "night", told by the paths of the queries, against one map with sparse 3D.

    ``mapping/colmap/reconstruction/*.txt``, ``kapture/query``, ``images/{db,query,sequences}`` and, where present,
    ``pairsfile/query/fire_top50.txt``. The poses of the queries are hidden: they have intrinsics and no camera.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = Path(root)
    references = _map(TextModel(root / "mapping" / "colmap" / "reconstruction"), [root / "images"])
    queries = read_records(root / "kapture" / "query", root / "images")
    retrieved = published_pairs(root)
    parts = [
        Relocalisation(time, references, tuple(q for q in queries if time in q.photo.name), retrieved)
        for time in ("day", "night")
    ]
    return [part for part in parts if scenes is None or part.name in scenes]


def read_inloc(root: Path, scenes: Sequence[str] | None = None) -> list[Relocalisation]:
    """InLoc: hand-held queries against cut-outs of laser scans, whose pixels have 3D and which have no camera.

    ``mapping`` and ``query`` (kapture), ``<cut-out>.mat`` beside each cut-out with ``XYZcut`` in the frame of its scan,
    ``mapping/DUC1_alignment/all_transformations.txt`` and, where present, ``pairsfile/query/*.txt``. The poses of the
    queries are hidden.

    Args:
        root: the folder of ``mapping`` and ``query``.
        scenes: buildings whose cut-outs are the map, "DUC1" or "DUC2"; both by default.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    root = Path(root)
    alignments: dict[str, dict[str, Float[Tensor, "4 4"]]] = {}
    references = []
    for frame in read_records(root / "mapping"):
        match = re.search(r"(DUC\d)/(\d{3})/", frame.photo.name)
        if match is None:
            raise UserError(f"{frame.photo.name} in {root / 'mapping'} is no cut-out of InLoc (DUC1/024/...).")
        building, scan = match.groups()
        if scenes is not None and building not in scenes:
            continue
        file = root / "mapping" / f"{building}_alignment" / "all_transformations.txt"
        if building not in alignments:
            alignments[building] = _read_alignments(file)
        if scan not in alignments[building]:
            raise UserError(f"{file} has no scan {scan}, which {frame.photo.name} is cut from.")
        assert frame.photo.path is not None
        cut = frame.photo.path.with_name(f"{frame.photo.path.name}.mat")
        landmarks = partial(_scan_points, cut, alignments[building][scan])
        references.append(Frame(frame.photo, landmarks=landmarks, intrinsics=frame.intrinsics))
    return [Relocalisation("inloc", tuple(references), read_records(root / "query"), published_pairs(root))]


def read_records(folder: Path, photos: Path | None = None) -> tuple[Frame, ...]:
    """The photos of a kapture folder in order of time, with cameras where it has trajectories.

    Args:
        folder: the one that holds ``sensors``.
        photos: where the photos are, if they are not in ``sensors/records_data``.

    Raises:
        UserError: something is missing; the sentence says what.
    """
    sensors = require_folder(folder / "sensors", "kapture's sensors.txt and records_camera.txt")
    cameras = _read_sensors(sensors / "sensors.txt")
    poses = _read_trajectories(sensors / "trajectories.txt")
    records = [row for row in _csv(sensors / "records_camera.txt", "time, camera, photo") if len(row) >= 3]
    frames = []
    for time, device, name in (row[:3] for row in records):
        if device not in cameras:
            raise UserError(f"{sensors / 'sensors.txt'} has no camera {device}, which took {name}.")
        path = first_existing(sensors / "records_data" / name, *([photos / name] if photos is not None else []))
        frames.append(_frame(LazyPhoto(name, path), cameras[device], poses.get((time, device))))
    return tuple(frames)


def read_pair_list(path: Path) -> dict[str, tuple[str, ...]]:
    """Names of map photos for each query, best first: "query, map, score" (kapture) or "query map" (hloc) a line.

    Of hloc's names the folders ``query/`` and ``database/cutouts/`` are taken off.

    Raises:
        UserError: no such file, or another format.
    """
    scored: dict[str, list[tuple[float, str]]] = {}
    for line in text_lines(path, "lines of query, photo of the map, score"):
        try:
            if "," in line:
                query, reference, *score = (word.strip() for word in line.split(","))
            else:
                query, reference, *score = line.split()
                query, reference = query.removeprefix("query/"), reference.removeprefix("database/cutouts/")
            scored.setdefault(query, []).append((-float(score[0]) if score else 0.0, reference))
        except ValueError as error:
            raise UserError(f"{path} holds {line[:60]!r}, which is no pair of photos.") from error
    best_first = {query: sorted(names, key=lambda item: item[0]) for query, names in scored.items()}
    return {query: tuple(name for _, name in names) for query, names in best_first.items()}


def published_pairs(folder: Path) -> Mapping[str, tuple[str, ...]] | None:
    """The one list of retrieved photos in ``pairsfile/query`` (or ``pairfiles/query``), where there is one.

    Raises:
        UserError: there are several, or it has another format.
    """
    place = first_existing(folder / "pairsfile" / "query", folder / "pairfiles" / "query")
    if not place.is_dir():
        return None
    files = listed(place, "*.txt", "a list of retrieved photos")
    if len(files) > 1:
        raise UserError(f"{place} holds {len(files)} lists of retrieved photos; leave the one to be used.")
    return read_pair_list(files[0])


def _map(model: TextModel, places: Sequence[Path]) -> tuple[Frame, ...]:
    frames = []
    for name, image in model.images.items():
        path = first_existing(*(place / name for place in places))
        camera = model.camera(name)
        posed = posed_camera(camera.pinhole(), invert_rigid(image.camera_from_world), (camera.width, camera.height))
        frames.append(Frame(LazyPhoto(name, path), posed, landmarks=partial(model.landmarks, name)))
    return tuple(frames)


def _frame(photo: LazyPhoto, camera: TextCamera, camera_from_world: Float[Tensor, "4 4"] | None) -> Frame:
    if not camera.parameters:  # UNKNOWN_CAMERA
        return Frame(photo)
    if camera_from_world is None:
        return Frame(photo, intrinsics=calibration(camera.pinhole()))
    size = camera.width, camera.height
    return Frame(photo, posed_camera(camera.pinhole(), invert_rigid(camera_from_world), size))


def _csv(path: Path, what: str) -> list[list[str]]:
    return [[word.strip() for word in line.split(",")] for line in text_lines(path, what)]


def _read_sensors(path: Path) -> dict[str, TextCamera]:
    """ "id, name, camera, model, width, height, parameters" a line; the parameters are COLMAP's."""
    cameras = {}
    for row in _csv(path, "kapture's sensors"):
        if len(row) >= 6 and row[2] == "camera":
            try:
                parameters = [float(word) for word in row[6:]]
                cameras[row[0]] = TextCamera(row[3], int(float(row[4])), int(float(row[5])), parameters)
            except ValueError as error:
                raise UserError(f"{path} holds {', '.join(row)[:60]!r}, which is no camera of kapture.") from error
    return cameras


def _read_trajectories(path: Path) -> dict[tuple[str, str], Float[Tensor, "4 4"]]:
    """``camera_from_world`` by time and camera; empty where poses are not public."""
    if not path.is_file():
        return {}
    poses = {}
    for row in _csv(path, "kapture's trajectories"):
        try:
            numbers = [float(word) if word else float("nan") for word in row[2:9]]
            poses[row[0], row[1]] = pose_from_quaternion(numbers[:4], numbers[4:])
        except (ValueError, IndexError, RuntimeError) as error:
            raise UserError(f"{path} holds {', '.join(row)[:60]!r}, which is no pose of kapture.") from error
    return poses


def _read_alignments(path: Path) -> dict[str, Float[Tensor, "4 4"]]:
    """World from scan, by the scan's three digits: the matrix after the words "After general icp:"."""
    lines = text_lines(path, "the alignment of InLoc's scans")
    scan, poses = "", {}
    for k, line in enumerate(lines):
        if re.fullmatch(r"\d{3}", line):
            scan = line
        elif line.startswith("After general icp"):
            try:
                poses[scan] = pose_matrix([float(word) for row in lines[k + 1 : k + 5] for word in row.split()])
            except (ValueError, RuntimeError) as error:
                raise UserError(f"{path} has no 4x4 matrix for the scan {scan}.") from error
    return poses


def _scan_points(path: Path, world_from_scan: Float[Tensor, "4 4"]) -> Landmarks:
    try:
        values = np.asarray(loadmat(require_file(path, "XYZcut of a cut-out"))["XYZcut"], np.float64)
        points = torch.from_numpy(values.reshape(*values.shape[:2], 3))
    except (KeyError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be used: XYZcut (height, width, 3) is expected in it.") from error
    known = points.isfinite().all(-1) & (points != 0).any(-1)
    pixels = pixel_grid(*points.shape[:2])[known]
    return Landmarks(pixels, transform_points(world_from_scan, points[known]).float())
