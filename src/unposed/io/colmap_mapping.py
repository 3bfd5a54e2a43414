"""COLMAP's incremental mapping of matched photos: cameras and points of every connected part."""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from jaxtyping import Float, Int64
from torch import Tensor

from unposed.io.colmap import ColmapModel, cameras_from_reconstruction, pycolmap, tracks_from_reconstruction
from unposed.io.colmap_database import write_database
from unposed.views import Pair

SMALLEST_MODEL = 3
"""Parts of fewer photos are given up."""
_SEED = 0


def map_matches(
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    focals: Sequence[float],
    keypoints: Sequence[Float[Tensor, "n 2"]],
    matches: Mapping[Pair, Int64[Tensor, "m 2"]],
    *,
    one_camera: bool,
    progress: Callable[[int, int], None],
) -> list[ColmapModel]:
    """Cameras and points that verified matches tell, the largest part first; no photo is in two of them.

    Pinhole cameras with their principal point in the middle; bundle adjustment is part of the mapping, its limits are
    a few pixels of the given images. Arguments as for ``write_database``; ``progress`` is told how many
    photos of how many have been tried. Nothing where no pair of photos is good enough to start from.
    """
    with tempfile.TemporaryDirectory(prefix="unposed-") as folder:
        database = Path(folder) / "database.db"
        write_database(
            database,
            names,
            sizes,
            focals,
            keypoints,
            matches,
            one_camera=one_camera,
            verified=True,
            camera_model="SIMPLE_PINHOLE",
        )
        with _silent():
            found = pycolmap.incremental_mapping(
                database, folder, folder, _options(), next_image_callback=_counted(progress, len(names))
            )
    progress(len(names), len(names))
    models: list[ColmapModel] = []
    taken: set[str] = set()
    for reconstruction in sorted(found.values(), key=lambda model: -model.num_reg_images()):
        for image in list(reconstruction.images.values()):
            if image.has_pose and image.name in taken:
                reconstruction.deregister_frame(image.frame_id)
        if reconstruction.num_reg_images() < SMALLEST_MODEL:
            continue
        cameras = cameras_from_reconstruction(reconstruction)
        taken |= cameras.keys()
        models.append(ColmapModel(cameras, tracks_from_reconstruction(reconstruction)))
    return models


def _counted(progress: Callable[[int, int], None], total: int) -> Callable[[], None]:
    """Tells ``progress`` how often it was called; the last step is not its."""
    count = itertools.count(1)
    return lambda: progress(min(next(count), total - 1), total)


@contextmanager
def _silent() -> Iterator[None]:
    """COLMAP's news of every photo stay out of the terminal."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.ERROR.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def _options() -> "pycolmap.IncrementalPipelineOptions":
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = SMALLEST_MODEL
    options.extract_colors = False
    options.random_seed = _SEED
    options.triangulation.ignore_two_view_tracks = False  # few photos have little else: AUC@5 of five goes 0.13 to 0.58
    return options
