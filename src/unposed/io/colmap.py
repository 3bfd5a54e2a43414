"""COLMAP: its model files, and its bundle adjustment. The only module that imports pycolmap.

COLMAP's pixel (0, 0) is the corner of the top-left pixel, ours its centre: half a pixel is added and taken off here.
Its poses are ``camera_from_world``, like ours with x right, y down, z forward.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import PIL.Image  # noqa: F401  # pycolmap brings its own zlib: imported before Pillow, it breaks the PNG writer
import torch

# isort: split
import pycolmap

from unposed.errors import UserError
from unposed.geometry.transforms import invert_rigid, rigid
from unposed.io.atomic import atomic_directory, atomic_write, restore_directory
from unposed.io.colmap_check import check_binary_model
from unposed.views import Camera, PointCloud, Tracks

_HALF = 0.5


def reconstruction_from_cameras(
    cameras: Mapping[str, Camera],
    tracks: Tracks | PointCloud | None = None,
    *,
    sharing: Literal["equal", "size", "none"] = "equal",
    square_pixels: bool = False,
) -> pycolmap.Reconstruction:
    """A COLMAP model; image ``k + 1`` is the ``k``-th photo.

    Args:
        cameras: cameras of the original photos, by name.
        tracks: points with observations (``view`` counts in the order of ``cameras``); a point cloud gives points that
            no image observes.
        sharing: which photos share a COLMAP camera: those of equal size and intrinsics, all of one size (with the
            median of their intrinsics), or none.
        square_pixels: one focal length (SIMPLE_PINHOLE, the mean of both) in place of two (PINHOLE).
    """
    reconstruction = pycolmap.Reconstruction()
    camera_ids: dict[tuple[float, ...], int] = {}
    images = []
    intrinsics = _colmap_intrinsics(list(cameras.values()), median_by_size=sharing == "size")
    for k, (name, camera) in enumerate(cameras.items()):
        fx, fy, cx, cy = intrinsics[k]
        params = [(fx + fy) / 2, cx, cy] if square_pixels else [fx, fy, cx, cy]
        key = (camera.width, camera.height, *params, k if sharing == "none" else 0)
        if key not in camera_ids:
            camera_ids[key] = len(camera_ids) + 1
            model = "SIMPLE_PINHOLE" if square_pixels else "PINHOLE"
            reconstruction.add_camera_with_trivial_rig(
                pycolmap.Camera(
                    camera_id=camera_ids[key], model=model, width=camera.width, height=camera.height, params=params
                )
            )
        keypoints = np.zeros((0, 2))
        if isinstance(tracks, Tracks):
            keypoints = tracks.pixel[tracks.view == k].double().numpy() + _HALF
        image = pycolmap.Image(name=name, keypoints=keypoints, camera_id=camera_ids[key], image_id=k + 1)
        images.append((image, camera.camera_from_world.double()))
    for image, pose in images:
        reconstruction.add_image_with_trivial_frame(
            image, pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:3, :3].numpy()), pose[:3, 3].numpy())
        )
    if tracks is not None:
        _add_points(reconstruction, tracks)
    return reconstruction


def _colmap_intrinsics(cameras: Sequence[Camera], median_by_size: bool) -> list[tuple[float, ...]]:
    """(fx, fy, cx, cy) of each camera in COLMAP's pixels."""
    rows: list[tuple[float, ...]] = [
        (float(k[0, 0]), float(k[1, 1]), float(k[0, 2]) + _HALF, float(k[1, 2]) + _HALF)
        for k in (camera.intrinsics for camera in cameras)
    ]
    if median_by_size:
        sizes = [(camera.width, camera.height) for camera in cameras]
        groups = {size: [row for row, other in zip(rows, sizes, strict=True) if other == size] for size in set(sizes)}
        rows = [tuple(np.median(groups[size], axis=0).tolist()) for size in sizes]
    return rows


def _add_points(reconstruction: pycolmap.Reconstruction, tracks: Tracks | PointCloud) -> None:
    if isinstance(tracks, PointCloud):
        for xyz, colour in zip(tracks.positions.double().numpy(), tracks.colours.numpy(), strict=True):
            reconstruction.add_point3D(xyz, pycolmap.Track(), colour)
        return
    elements: list[list[pycolmap.TrackElement]] = [[] for _ in range(len(tracks.points))]
    seen: dict[int, int] = {}
    for view, track in zip(tracks.view.tolist(), tracks.track.tolist(), strict=True):
        elements[track].append(pycolmap.TrackElement(view + 1, seen.get(view, 0)))
        seen[view] = seen.get(view, 0) + 1
    points = zip(tracks.points.double().numpy(), tracks.colours.numpy(), elements, strict=True)
    for xyz, colour, observed in points:
        reconstruction.add_point3D(xyz, pycolmap.Track(observed), colour)


def cameras_from_reconstruction(reconstruction: pycolmap.Reconstruction) -> dict[str, Camera]:
    """Cameras of the registered images, by name, in the order of their ids.

    Raises:
        UserError: a camera has lens distortion.
    """
    cameras = {}
    for _, image in sorted(reconstruction.images.items()):
        if not image.has_pose:
            continue
        camera = reconstruction.camera(image.camera_id)
        if camera.model.name not in ("PINHOLE", "SIMPLE_PINHOLE"):
            raise UserError(
                f"The COLMAP camera of {image.name} is {camera.model.name}; "
                "undistort the model first (colmap image_undistorter)."
            )
        intrinsics = torch.tensor(camera.calibration_matrix())
        intrinsics[:2, 2] -= _HALF
        pose = torch.from_numpy(np.array(image.cam_from_world().matrix()))
        world_from_camera = invert_rigid(rigid(pose[:, :3], pose[:, 3]))
        cameras[image.name] = Camera(intrinsics.float(), world_from_camera.float(), camera.width, camera.height)
    return cameras


def tracks_from_reconstruction(reconstruction: pycolmap.Reconstruction) -> Tracks:
    """Points with their observations; ``view`` counts in the order of :func:`cameras_from_reconstruction`."""
    registered = [image_id for image_id, image in sorted(reconstruction.images.items()) if image.has_pose]
    index = {image_id: k for k, image_id in enumerate(registered)}
    points, colours, view, pixel, track = [], [], [], [], []
    for k, (_, point) in enumerate(sorted(reconstruction.points3D.items())):
        points.append(point.xyz)
        colours.append(point.color)
        for element in point.track.elements:
            if element.image_id in index:
                view.append(index[element.image_id])
                pixel.append(reconstruction.image(element.image_id).points2D[element.point2D_idx].xy)
                track.append(k)
    return Tracks(
        points=torch.tensor(np.array(points).reshape(-1, 3), dtype=torch.float32),
        colours=torch.tensor(np.array(colours, np.uint8).reshape(-1, 3)),
        view=torch.tensor(view, dtype=torch.int64),
        pixel=torch.tensor(np.array(pixel).reshape(-1, 2) - _HALF, dtype=torch.float32),
        track=torch.tensor(track, dtype=torch.int64),
    )


def write_colmap(
    directory: str | Path,
    cameras: Mapping[str, Camera],
    tracks: Tracks | PointCloud | None = None,
    *,
    text: bool = False,
) -> None:
    """Write a model folder (``cameras``, ``images``, ``points3D`` and more; binary or text) as a whole.

    Arguments as for :func:`reconstruction_from_cameras`; an earlier model in the folder is replaced.

    Raises:
        UserError: the folder holds something else or cannot be written.
    """
    reconstruction = reconstruction_from_cameras(cameras, tracks)
    with atomic_directory(directory, marker=f"cameras.{'txt' if text else 'bin'}") as folder:
        if text:
            reconstruction.write_text(folder)
        else:
            reconstruction.write_binary(folder)


def write_colmap_text(directory: str | Path, cameras: Mapping[str, Camera], tracks: Tracks | PointCloud | None) -> None:
    """Write the text files of a model into a folder that may hold other things too, each file as a whole.

    Arguments as for :func:`reconstruction_from_cameras`.

    Raises:
        UserError: the folder cannot be written.
    """
    directory = Path(directory)
    with tempfile.TemporaryDirectory() as folder:
        reconstruction_from_cameras(cameras, tracks).write_text(folder)
        for file in sorted(Path(folder).iterdir()):
            with atomic_write(directory / file.name) as temporary:
                shutil.copyfile(file, temporary)


class ColmapModel(NamedTuple):
    """What a COLMAP model holds."""

    cameras: dict[str, Camera]
    """Cameras of the photos, by name."""
    tracks: Tracks
    """Sparse points; ``view`` counts in the order of ``cameras``."""


def read_colmap(directory: str | Path) -> ColmapModel:
    """Read a model folder, binary or text, or a folder that holds one in ``sparse/0``.

    Raises:
        UserError: no model there, a damaged one, or cameras with lens distortion.
    """
    directory = Path(directory)
    if (directory / "sparse").is_dir():
        directory = directory / "sparse" / "0"
    restore_directory(directory)
    if not any((directory / f"cameras.{suffix}").is_file() for suffix in ("bin", "txt")):
        raise UserError(f"{directory} holds no COLMAP model (cameras.bin or cameras.txt); give its sparse/0 folder.")
    try:
        if (directory / "cameras.bin").is_file():
            check_binary_model(directory)
        reconstruction = pycolmap.Reconstruction(directory)
    except (ValueError, RuntimeError, LookupError, OSError, MemoryError) as error:
        raise UserError(f"The COLMAP model in {directory} cannot be used: {error}") from error
    return ColmapModel(cameras_from_reconstruction(reconstruction), tracks_from_reconstruction(reconstruction))


def bundle_adjust(
    cameras: Sequence[Camera],
    tracks: Tracks,
    *,
    fixed_intrinsics: bool = False,
    shared_intrinsics: bool = False,
    fixed_poses: Sequence[int] = (),
) -> list[Camera]:
    """Cameras of the original photos that minimise the tracks' reprojection error (Ceres, soft-L1 loss).

    Focal lengths are refined, principal points stay. Cameras whose fx and fy differ by less than 1 % come back with
    square pixels. The loss turns linear beyond one pixel of a 512-pixel-wide photo. If the solver fails, or if no track
    has two observations, the cameras come back as they are.

    Args:
        cameras: in the order that ``tracks.view`` counts in.
        tracks: sparse points and their observations; the points move too, but only cameras are returned.
        fixed_intrinsics: leave focal lengths as they are.
        shared_intrinsics: one focal length for all photos of one size.
        fixed_poses: indices of cameras whose pose stays exactly as it is; with fewer than two of them, the rest of the
            frame (position, orientation, scale) is held by two cameras.
    """
    tracks = _tracks_of_two_views(tracks)
    if len(tracks.points) == 0:
        return list(cameras)
    square = not fixed_intrinsics and all(abs(c.intrinsics[0, 0] / c.intrinsics[1, 1] - 1) < 0.01 for c in cameras)
    by_name = {str(k): camera for k, camera in enumerate(cameras)}
    reconstruction = reconstruction_from_cameras(
        by_name,
        tracks,
        sharing="size" if shared_intrinsics else "equal" if fixed_intrinsics else "none",
        square_pixels=square,
    )
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in reconstruction.images:
        config.add_image(image_id)
    for k in fixed_poses:
        config.set_constant_rig_from_world_pose(reconstruction.image(k + 1).frame_id)
    if len(fixed_poses) < 2:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    options = pycolmap.BundleAdjustmentOptions(refine_focal_length=not fixed_intrinsics, print_summary=False)
    options.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
    options.ceres.loss_function_scale = max(max(camera.width, camera.height) for camera in cameras) / 512
    options.ceres.solver_options.function_tolerance = 1e-6
    summary = pycolmap.create_default_bundle_adjuster(options, config, reconstruction).solve()
    if not summary.is_solution_usable():
        return list(cameras)
    adjusted = cameras_from_reconstruction(reconstruction)
    result = [adjusted[name] for name in by_name]
    for k in fixed_poses:
        result[k] = replace(result[k], world_from_camera=cameras[k].world_from_camera)
    return result


def _tracks_of_two_views(tracks: Tracks) -> Tracks:
    """Without the points that have fewer than two observations, which no bundle adjustment can use."""
    keep = torch.bincount(tracks.track, minlength=len(tracks.points)) >= 2
    observed = keep[tracks.track]
    new_index = keep.cumsum(0) - 1
    return Tracks(
        points=tracks.points[keep],
        colours=tracks.colours[keep],
        view=tracks.view[observed],
        pixel=tracks.pixel[observed],
        track=new_index[tracks.track[observed]],
    )
