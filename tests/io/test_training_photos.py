from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.factories import box_scene
from unposed.io.training_photos import place_photos, usable_as_is
from unposed.views import View


def photo(path, size=(132, 96), orientation=None) -> np.ndarray:
    """Write a picture whose stored size is ``size``; returns its pixels as stored."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = (250, 20, 30)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return pixels


@pytest.fixture
def view() -> View:
    return box_scene(views=1).views[0].view


@pytest.fixture
def camera():
    return box_scene(views=1).views[0].camera


def test_plain_photos_are_linked(tmp_path, view, camera):
    photo(tmp_path / "a.png")
    view = replace(view, name="left/a.png", path=tmp_path / "a.png")
    assert usable_as_is(view)
    for _ in range(2):  # the second time it replaces its own link
        placed = place_photos(tmp_path / "out", [view], [camera])
    assert placed[0].name == "left/a.png"
    assert placed[0].camera is camera
    assert (tmp_path / "out/left/a.png").samefile(tmp_path / "a.png")


def test_a_photo_in_its_own_folder_stays(tmp_path, view, camera):
    photo(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    place_photos(tmp_path, [replace(view, name="a.png", path=tmp_path / "a.png")], [camera])
    assert not (tmp_path / "a.png").is_symlink()
    assert (tmp_path / "a.png").read_bytes() == before


def test_rotated_photos_are_written_upright(tmp_path, view, camera):
    stored = photo(tmp_path / "a.jpg", size=(96, 132), orientation=6)  # turned: 132 x 96
    view = replace(view, name="a.jpg", path=tmp_path / "a.jpg")
    assert not usable_as_is(view)
    placed = place_photos(tmp_path / "out", [view], [camera])
    with Image.open(tmp_path / "out" / placed[0].name) as image:
        assert image.size == (camera.width, camera.height)
        assert image.getexif().get(0x0112, 1) == 1
        upright = np.rot90(stored, -1)
        assert np.abs(np.asarray(image).astype(int) - upright).mean() < 3
    assert placed[0].camera is camera


def test_unusual_formats_become_jpeg(tmp_path, view, camera):
    photo(tmp_path / "a.webp")
    placed = place_photos(tmp_path / "out", [replace(view, name="a.webp", path=tmp_path / "a.webp")], [camera])
    assert placed[0].name == "a.webp.jpg"
    with Image.open(tmp_path / "out" / "a.webp.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (132, 96))


@pytest.mark.parametrize("path", [None, "gone.png", "other_size.png"])
def test_without_the_photo_the_view_and_its_camera_are_given(tmp_path, view, camera, path):
    photo(tmp_path / "other_size.png", size=(50, 50))
    view = replace(view, name="clip/7", path=None if path is None else tmp_path / path)
    placed = place_photos(tmp_path / "out", [view], [camera])[0]
    assert placed.name == "clip/7.png"
    with Image.open(tmp_path / "out" / placed.name) as image:
        assert np.array_equal(np.asarray(image), view.image.numpy())
        assert (placed.camera.width, placed.camera.height) == image.size
    corner = placed.file_from_original @ torch.tensor([3.5, 1.5, 1.0], dtype=torch.float64)
    assert torch.allclose(corner[:2], torch.zeros(2, dtype=torch.float64), atol=1e-9)
    point = torch.tensor([0.1, -0.2, 2.0])
    seen = camera.intrinsics @ point
    expected = placed.file_from_original @ (seen / seen[2]).double()
    found = placed.camera.intrinsics @ point
    assert torch.allclose((found / found[2]).double(), expected, atol=1e-4)
