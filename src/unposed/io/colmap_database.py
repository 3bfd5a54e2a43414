"""A COLMAP database of photos, cameras, keypoints and matches, for COLMAP's own mapping."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from unposed.io.atomic import atomic_write
from unposed.io.colmap import pycolmap
from unposed.views import Pair

_HALF = 0.5


def write_database(
    path: Path,
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    focals: Sequence[float],
    keypoints: Sequence[Float[Tensor, "n 2"]],
    matches: Mapping[Pair, Int64[Tensor, "m 2"]],
    *,
    one_camera: bool,
    verified: bool,
    camera_model: Literal["SIMPLE_RADIAL", "SIMPLE_PINHOLE"] = "SIMPLE_RADIAL",
) -> None:
    """Write ``database.db``; image ``k + 1`` is the ``k``-th photo.

    Cameras have no distortion, their focal length is a guess that mapping may change, the principal point is in the
    middle.

    Args:
        path: an earlier file is replaced.
        names: of the photos, relative to the folder that mapping is given as image path.
        sizes: (width, height) of the photos.
        focals: in pixels of the photos.
        keypoints: pixels of every photo, (0, 0) the centre of the top-left pixel (COLMAP's half is added here).
        matches: index pairs of keypoints by pair of photos.
        one_camera: photos of one size share a camera, with the median of their focal lengths.
        verified: the matches obey an epipolar geometry and are written as two-view geometries too, which mapping
            starts from; otherwise COLMAP has to verify them first.
        camera_model: SIMPLE_RADIAL lets mapping find the distortion of the lens.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        database = pycolmap.Database.open(temporary)
        try:
            camera_ids = _write_cameras(database, sizes, focals, one_camera, camera_model)
            for k, (name, camera_id, pixels) in enumerate(zip(names, camera_ids, keypoints, strict=True), start=1):
                _write_image(database, k, name, camera_id)
                database.write_keypoints(k, (pixels.numpy() + _HALF).astype(np.float32))
            for (i, j), index in matches.items():
                rows = index.numpy().astype(np.uint32)
                database.write_matches(i + 1, j + 1, rows)
                if verified and len(rows):
                    geometry = pycolmap.TwoViewGeometry()
                    geometry.config = pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED
                    geometry.inlier_matches = rows
                    database.write_two_view_geometry(i + 1, j + 1, geometry)
        finally:
            database.close()


def _write_cameras(
    database: "pycolmap.Database",
    sizes: Sequence[tuple[int, int]],
    focals: Sequence[float],
    one_camera: bool,
    model: str,
) -> list[int]:
    """Camera id of every photo."""
    groups = [size if one_camera else (*size, k) for k, size in enumerate(sizes)]
    ids = {}
    for group in dict.fromkeys(groups):
        members = [k for k, other in enumerate(groups) if other == group]
        width, height = sizes[members[0]]
        params = [float(np.median([focals[k] for k in members])), width / 2, height / 2]
        params += [0.0] * (model == "SIMPLE_RADIAL")
        camera = pycolmap.Camera(model=model, width=width, height=height, params=params)
        ids[group] = database.write_camera(camera)
        rig = pycolmap.Rig(rig_id=ids[group])
        rig.add_ref_sensor(pycolmap.sensor_t(type=pycolmap.SensorType.CAMERA, id=ids[group]))
        database.write_rig(rig, use_rig_id=True)
    return [ids[group] for group in groups]


def _write_image(database: "pycolmap.Database", image_id: int, name: str, camera_id: int) -> None:
    """An image with the frame of its own that COLMAP asks for."""
    image = pycolmap.Image(name=name, camera_id=camera_id, image_id=image_id)
    database.write_image(image, use_image_id=True)
    frame = pycolmap.Frame(frame_id=image_id, rig_id=camera_id)
    sensor = pycolmap.sensor_t(type=pycolmap.SensorType.CAMERA, id=camera_id)
    frame.add_data_id(pycolmap.data_t(sensor_id=sensor, id=image_id))
    database.write_frame(frame, use_frame_id=True)
