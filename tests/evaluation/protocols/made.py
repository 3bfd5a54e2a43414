"""A tiny procedural sequence with exact truth, as a benchmark reader would give it."""

from pathlib import Path

from tests.tasks.perfect import rendered, true_cameras, write_photos
from unposed.evaluation.datasets.base import Frame, FrameSequence
from unposed.io.photos import find_photos
from unposed.synth import RenderedViews


def room(directory: Path, views: int = 4, name: str = "rooms/one") -> tuple[RenderedViews, FrameSequence]:
    """The rendered truth of one room, and its sequence of photos with cameras and depth."""
    truth = rendered(views)
    write_photos(directory, truth)
    cameras = true_cameras(truth)
    photos = {photo.name: photo for photo in find_photos(directory).photos}
    frames = tuple(
        Frame(photos[photo], camera, lambda k=k: truth.depth[0, k]) for k, (photo, camera) in enumerate(cameras.items())
    )
    return truth, FrameSequence(name, frames)
