"""What every task takes: a photo in whichever form the user has it, and a model by name or already loaded."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unposed.errors import UserError
from unposed.io import videos
from unposed.io.photos import Photo, PhotoSet, find_photos
from unposed.models.base import MonocularModel, PairModel, PoseModel
from unposed.models.default import choose_default
from unposed.models.registry import AnyModel, load_model
from unposed.tasks.progress import Reporter

PhotoLike = str | Path | Image.Image | np.ndarray | Photo
"""A file, a Pillow picture, an array height x width x 3 of uint8 RGB, or a photo that was found already."""


def as_photo(source: PhotoLike, name: str = "photo.png") -> Photo:
    """One photo, checked; ``name`` is what a picture that is no file is called.

    Raises:
        UserError: the file is missing, damaged, or not one photo; the array is not height x width x 3 of uint8.
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise UserError(f"an array of {source.dtype} {source.shape} is no photo: give height x width x 3 of uint8.")
        source = Image.fromarray(source)
    if isinstance(source, Image.Image):
        buffer = io.BytesIO()
        source.convert("RGB").save(buffer, "PNG", compress_level=1)
        data = buffer.getvalue()
        return Photo(name, None, source.size, None, hashlib.sha256(data).hexdigest(), data)
    photos = find_photos(source).photos
    if len(photos) != 1:
        raise UserError(f"{source} holds {len(photos)} photos where one is asked for: name one of them.")
    return photos[0]


PhotosLike = PhotoLike | Sequence[PhotoLike] | PhotoSet
"""One photo, or several: a folder, a glob pattern, a video, a list of files and folders, or a list of photos."""


def as_photos(source: PhotosLike, *, frames: int | None = None, every: int | None = None) -> PhotoSet:
    """All photos of a source, checked; ``frames`` and ``every`` choose frames of a video.

    Pictures and arrays of a list are called ``photo_0.png``, ``photo_1.png``, ...

    Raises:
        UserError: as ``find_photos`` and ``as_photo`` do.
    """
    if isinstance(source, PhotoSet):
        return source
    if isinstance(source, Image.Image | np.ndarray | Photo):
        return PhotoSet([as_photo(source)], [])
    if isinstance(source, str | Path) or all(isinstance(item, str | Path) for item in source):
        return find_photos(source, frames=frames, every=every)  # type: ignore[arg-type]
    return PhotoSet([as_photo(item, f"photo_{k}.png") for k, item in enumerate(source)], [])


def is_one_photo(source: PhotosLike) -> bool:
    """Whether a source is by its form a single photo, and not a list, a folder, a pattern or a video."""
    if isinstance(source, str | Path):
        return Path(source).is_file() and Path(source).suffix.lower() not in videos.SUFFIXES
    return isinstance(source, Image.Image | np.ndarray | Photo)


def as_any_model(
    model: str | Path | PairModel | MonocularModel, device: str, report: Reporter
) -> PairModel | MonocularModel:
    """The model itself, the one of that name or file, or for ``auto`` the offline one that its card shows to be better.

    Raises:
        UserError: as ``unposed.models.registry.load_model`` does; the model tells poses only.
    """
    loaded = _loaded(model, device, report)
    if isinstance(loaded, PoseModel):
        raise UserError(f"{loaded.name} tells poses and no depth; use it with `unposed pose`.")
    return loaded


def as_model(model: str | Path | PairModel, device: str, report: Reporter) -> PairModel:
    """As ``as_any_model``, for tasks that need to see pairs of photos.

    Raises:
        UserError: as ``as_any_model`` does; the model looks at single photos only.
    """
    return _sees_pairs(as_any_model(model, device, report))


def as_pose_model(model: str | Path | PairModel | PoseModel, device: str, report: Reporter) -> PairModel | PoseModel:
    """As ``as_model``, for the task that can do with poses alone.

    Raises:
        UserError: as ``load_model`` does; the model looks at single photos only.
    """
    loaded = _loaded(model, device, report)
    return loaded if isinstance(loaded, PoseModel) else _sees_pairs(loaded)


def _loaded(model: str | Path | AnyModel, device: str, report: Reporter) -> AnyModel:
    if not isinstance(model, str | Path):
        return model
    if model == "auto":
        model, reason = choose_default()
        report.say(f"model: {model} ({reason})")
    return load_model(model, device=device)


def _sees_pairs(model: PairModel | MonocularModel) -> PairModel:
    if isinstance(model, MonocularModel):
        raise UserError(f"{model.name} looks at one photo at a time and sees no poses; use it with `unposed depth`.")
    return model


def model_identity(asked: str | Path | PairModel, model: PairModel) -> str:
    """Tells models apart whose results must not be mixed: a file that has changed is another model."""
    path = Path(asked) if isinstance(asked, str | Path) else None
    return f"{model.name}:{path.stat().st_mtime_ns}" if path is not None and path.exists() else model.name
