"""Photos in: formats, EXIF, names, sources, what is skipped and why, and the exact way back from view to photo."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from unposed.errors import UserError
from unposed.geometry.cameras import map_pixels
from unposed.io import decode
from unposed.io.photos import ImageRule, PhotoSet, find_photos, make_view, make_views

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged files

ORIENTATION, EXIF_IFD = 0x0112, 0x8769
STORED_FROM_UPRIGHT = {  # how a camera stores an upright picture for each EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
    8: lambda a: np.rot90(a, -1),
}


def picture(seed: int = 0, width: int = 160, height: int = 120) -> Image.Image:
    """A smooth colourful picture, different for every seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture(zlib.crc32(str(path).encode()))).save(path, **options)
    return path


def names(found: PhotoSet) -> list[str]:
    return [photo.name for photo in found.photos]


def reasons(found: PhotoSet) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in found.skipped}


class TestFormats:
    @pytest.mark.parametrize(
        ("name", "options", "tolerance"),
        [
            ("a.jpg", {"quality": 95, "subsampling": 0}, 12),
            ("a.JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 12),
            ("a.PNG", {}, 0),
            ("a.webp", {"lossless": True}, 0),
            ("a.tif", {"compression": "tiff_lzw"}, 0),
            ("a.TIFF", {}, 0),
            ("a.heic", {"quality": 95}, 20),
            ("a.avif", {"quality": 95}, 20),
            ("a.bmp", {}, 0),
        ],
    )
    def test_formats_keep_their_colours(self, tmp_path, name, options, tolerance):
        image = picture()
        save(tmp_path / name, image, **options)
        (photo,) = find_photos(tmp_path).photos
        assert photo.size == (160, 120)
        difference = np.abs(np.asarray(photo.load(), int) - np.asarray(image, int))
        assert np.percentile(difference, 99) <= tolerance

    @pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "YCbCr"])
    def test_modes_become_rgb(self, tmp_path, mode):
        image = picture().convert(mode)
        name = "a.jpg" if mode in ("CMYK", "YCbCr") else "a.png"
        save(tmp_path / name, image, **({"quality": 95, "subsampling": 0} if name == "a.jpg" else {}))
        pixels = find_photos(tmp_path).photos[0].load()
        assert pixels.mode == "RGB"
        expected = np.asarray(image.convert("RGB"), int)
        assert np.percentile(np.abs(np.asarray(pixels, int) - expected), 99) <= (15 if name == "a.jpg" else 0)

    def test_sixteen_bit_grey_keeps_its_high_byte(self, tmp_path):
        grey = np.tile(np.arange(256, dtype=np.uint16), (128, 1)) * 257
        for name in ("a.png", "b.tif"):
            save(tmp_path / name, Image.fromarray(grey))
            pixels = np.asarray(find_photos(tmp_path / name).photos[0].load())
            assert np.array_equal(pixels[..., 0], (grey >> 8).astype(np.uint8))
            assert np.array_equal(pixels[..., 0], pixels[..., 2])

    @pytest.mark.parametrize("name", ["a.png", "a.tif"])
    def test_sixteen_bit_colours_keep_their_high_byte(self, tmp_path, name):
        deep = np.asarray(picture(), np.uint16) * 256 + 77
        cv2.imwrite(str(tmp_path / name), deep[..., ::-1])
        assert np.array_equal(np.asarray(find_photos(tmp_path).photos[0].load()), deep >> 8)

    @pytest.mark.parametrize("name", ["a.mpo", "a.webp", "a.tif", "a.png"])
    def test_the_first_of_several_pictures(self, tmp_path, name):
        first, second = picture(1), picture(2)
        options = {"a.mpo": {"quality": 95, "subsampling": 0}, "a.webp": {"lossless": True}}.get(name, {})
        save(tmp_path / name, first, save_all=True, append_images=[second], **options)
        pixels = np.asarray(find_photos(tmp_path).photos[0].load(), int)
        assert np.percentile(np.abs(pixels - np.asarray(first, int)), 99) <= 12

    def test_transparency_is_laid_on_white(self, tmp_path):
        rgba = np.full((80, 80, 4), 255, np.uint8)
        rgba[..., :3] = 10
        rgba[:40, :, 3] = 0
        save(tmp_path / "a.png", Image.fromarray(rgba))
        palette = Image.fromarray(rgba).quantize(4)
        save(tmp_path / "b.png", palette)
        for photo in find_photos([tmp_path / "a.png"]).photos + find_photos([tmp_path / "b.png"]).photos:
            pixels = np.asarray(photo.load(), int)
            assert (pixels[:40] > 250).all()
            assert (pixels[40:] < 20).all()

    def test_content_decides_not_the_ending(self, tmp_path):
        image = picture()
        image.save(tmp_path / "really_a_png.jpg", "PNG")
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "no_ending", "PNG")
        assert names(find_photos(tmp_path)) == ["no_ending", "really_a_png.jpg"]


class TestExif:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.avif"])
    def test_photos_stand_upright(self, tmp_path, orientation, name):
        upright = np.asarray(picture(3, 160, 96))
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        stored = Image.fromarray(np.ascontiguousarray(STORED_FROM_UPRIGHT[orientation](upright)))
        save(tmp_path / name, stored, exif=exif, **({"quality": 95} if name not in ("a.png", "a.tif") else {}))
        photo = find_photos(tmp_path).photos[0]
        assert photo.size == (160, 96)
        assert np.percentile(np.abs(np.asarray(photo.load(), int) - upright), 99) < 15
        assert make_view(photo, ImageRule(64)).image.shape == (32, 64, 3)

    def test_heic_is_not_rotated_twice(self, tmp_path):
        upright = np.asarray(picture(3, 160, 96))
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        save(
            tmp_path / "a.heic",
            Image.fromarray(np.ascontiguousarray(np.rot90(upright))),
            exif=exif.tobytes(),
            quality=95,
        )
        photo = find_photos(tmp_path).photos[0]
        assert photo.size == (160, 96)
        assert np.abs(np.asarray(photo.load(), int) - upright).mean() < 5

    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            ({0xA405: 28}, 28 * np.hypot(160, 120) / np.hypot(36, 24)),  # FocalLengthIn35mmFilm, equal diagonals
            # 8 mm at 20 pixels a mm; the file is a quarter of the 640 x 480 that EXIF remembers
            ({0x920A: 8.0, 0xA20E: 20.0, 0xA210: 4, 0xA002: 640, 0xA003: 480}, 40.0),
            ({0x920A: 8.0, 0xA20E: 200.0, 0xA210: 3, 0xA405: 28}, 160.0),  # per centimetre; goes before the 35 mm value
            ({0x920A: 8.0, 0xA20E: 508.0}, 160.0),  # per inch when no unit is given
            ({0xA405: 0}, None),
            ({0x920A: 8.0}, None),
            ({0xA405: 65000}, None),  # no lens
            ({}, None),
        ],
    )
    def test_focal_length_in_original_pixels(self, tmp_path, tags, expected):
        exif = Image.Exif()
        exif.get_ifd(EXIF_IFD).update(tags)
        save(tmp_path / "a.jpg", exif=exif)
        photo = find_photos(tmp_path).photos[0]
        assert photo.exif_focal == (None if expected is None else pytest.approx(expected, rel=1e-3))
        assert make_view(photo, ImageRule()).exif_focal == photo.exif_focal

    def test_damaged_exif_is_no_reason_to_lose_a_photo(self, tmp_path):
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        exif.get_ifd(EXIF_IFD)[0xA405] = 28
        data = save(tmp_path / "a.jpg", exif=exif).read_bytes()
        start = data.index(b"Exif\0\0") + 6
        end = start + int.from_bytes(data[start - 8 : start - 6]) - 8
        for position in range(start, end):
            (tmp_path / "a.jpg").write_bytes(data[:position] + b"\xff" + data[position + 1 :])
            photo = find_photos(tmp_path).photos[0]
            assert sorted(photo.size) == [120, 160]
            assert photo.load().size == photo.size


class TestWayBack:
    @pytest.mark.parametrize(
        "rule", [ImageRule(), ImageRule(256), ImageRule(224), ImageRule(512, 14), ImageRule(square_ok=True)]
    )
    @pytest.mark.parametrize("size", [(640, 480), (479, 641), (700, 700), (1242, 375), (333, 250), (1500, 1100)])
    def test_points_return_to_their_pixels(self, tmp_path, rule, size):
        """Blobs drawn about known original pixels are found in the view and mapped back to where they were."""
        width, height = size
        centres = np.array([[0.5, 0.5], [0.4, 0.55], [0.58, 0.42]]) * size + [0.3, -0.2]
        y, x = np.mgrid[:height, :width]
        sigma = 0.012 * max(size)
        blobs = [np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2)) for cx, cy in centres]
        rgb = np.stack([np.round(255 * blob).astype(np.uint8) for blob in blobs], -1)
        save(tmp_path / "a.png", Image.fromarray(rgb))
        view = make_view(find_photos(tmp_path).photos[0], rule)
        assert view.original_from_view.dtype == torch.float64
        assert view.original_size == size
        assert all(side % rule.patch == 0 for side in view.size)
        channels = view.image.double()
        grid_y, grid_x = torch.meshgrid(*(torch.arange(side).double() for side in view.size), indexing="ij")
        for channel, centre in enumerate(centres):
            weight = channels[..., channel]
            found = torch.stack([(grid_x * weight).sum(), (grid_y * weight).sum()]) / weight.sum()
            back = map_pixels(view.original_from_view, found)
            assert back.numpy() == pytest.approx(centre, abs=0.05 * max(1, max(size) / rule.size))

    def test_corners_of_an_uncropped_view_are_the_photo_s(self, tmp_path):
        save(tmp_path / "a.png", picture(0, 1024, 768))
        view = make_view(find_photos(tmp_path).photos[0], ImageRule())
        border = torch.tensor([[-0.5, -0.5], [511.5, 383.5]], dtype=torch.float64)
        assert map_pixels(view.original_from_view, border).tolist() == [[-0.5, -0.5], [1023.5, 767.5]]

    @given(width=st.integers(64, 3000), height=st.integers(64, 3000), square_ok=st.booleans())
    @settings(max_examples=200, deadline=None)
    def test_every_plan_stays_inside_the_photo(self, width, height, square_ok):
        rule = ImageRule(512, 16, square_ok)
        if max(width, height) > 16 * min(width, height):
            return
        plan = rule.plan(width, height)
        left, top, right, bottom = plan.box
        assert 0 <= left < right <= plan.resized[0]
        assert 0 <= top < bottom <= plan.resized[1]
        assert (right - left) % 16 == (bottom - top) % 16 == 0
        assert max(plan.resized) == 512

    def test_square_photos_become_four_to_three_unless_asked(self):
        assert ImageRule().plan(700, 700).box == (0, 64, 512, 448)
        assert ImageRule(square_ok=True).plan(700, 700).box == (0, 0, 512, 512)
        assert ImageRule(224).plan(640, 480).box == (37, 0, 261, 224)

    def test_a_strip_is_refused_in_one_sentence(self):
        with pytest.raises(UserError, match="too narrow"):
            ImageRule(64).plan(1000, 80)

    def test_views_keep_order_and_report_progress(self, tmp_path):
        for k in range(6):
            save(tmp_path / f"{k}.png", picture(k))
        photos = find_photos(tmp_path).photos
        seen: list[tuple[int, int]] = []
        views = make_views(photos, ImageRule(64), progress=lambda done, total: seen.append((done, total)))
        assert [view.name for view in views] == [f"{k}.png" for k in range(6)]
        assert seen == [(k, 6) for k in range(1, 7)]
        for photo, view in zip(photos, views, strict=True):
            assert torch.equal(view.image, make_view(photo, ImageRule(64)).image)


class TestSources:
    def test_natural_order_of_names(self, tmp_path):
        for name in ("img10.png", "img2.png", "IMG1.png", "a.png", "img2b.png", "²x.png"):
            save(tmp_path / name)
        assert names(find_photos(tmp_path)) == ["a.png", "IMG1.png", "img2.png", "img2b.png", "img10.png", "²x.png"]

    def test_a_folder_means_its_own_photos(self, tmp_path):
        save(tmp_path / "a.png")
        save(tmp_path / "sub" / "b.png")
        assert names(find_photos(tmp_path)) == ["a.png"]
        assert find_photos(str(tmp_path)).photos[0].path == tmp_path / "a.png"

    def test_a_folder_of_folders_means_what_is_below(self, tmp_path):
        save(tmp_path / "left" / "1.png")
        save(tmp_path / "right" / "deep" / "1.png")
        save(tmp_path / ".hidden" / "1.png")
        save(tmp_path / "result" / "preview.png")
        (tmp_path / "result" / "scene.json").write_text("{}")
        (tmp_path / "notes.txt").write_text("x")
        assert names(find_photos(tmp_path)) == ["left/1.png", "right/deep/1.png"]

    def test_hidden_files_are_not_seen(self, tmp_path):
        save(tmp_path / "a.png")
        save(tmp_path / "._a.png")
        found = find_photos(tmp_path)
        assert names(found) == ["a.png"]
        assert not found.skipped

    def test_globs_lists_and_single_photos(self, tmp_path, monkeypatch):
        for name in ("x/1.png", "x/2.png", "y/1.png"):
            save(tmp_path / name)
        assert names(find_photos(str(tmp_path / "*" / "1.png"))) == ["x/1.png", "y/1.png"]
        assert names(find_photos(tmp_path / "x" / "*.png")) == ["1.png", "2.png"]
        assert names(find_photos([tmp_path / "y" / "1.png", tmp_path / "x"])) == ["x/1.png", "x/2.png", "y/1.png"]
        assert names(find_photos(tmp_path / "x" / "2.png")) == ["2.png"]
        monkeypatch.chdir(tmp_path)
        assert names(find_photos("x")) == ["1.png", "2.png"]
        assert find_photos("x/1.png").photos[0].path == tmp_path / "x" / "1.png"

    def test_brackets_in_a_real_name_are_no_pattern(self, tmp_path):
        save(tmp_path / "trip [2024]" / "1.png")
        assert names(find_photos(tmp_path / "trip [2024]")) == ["1.png"]

    def test_names_that_are_no_text(self, tmp_path):
        path = os.fsencode(tmp_path) + b"/\xff\xfe.png"
        Path(os.fsdecode(path)).write_bytes(save(tmp_path / "t" / "a.png").read_bytes())
        assert names(find_photos(tmp_path)) == ["\\xff\\xfe.png"]

    @pytest.mark.parametrize(
        "source", ["nowhere", "nowhere/*.jpg", ["nowhere"], "empty", [], "notes", "x" * 5000, "a\0b", "[", "**/x"]
    )
    def test_nothing_there_is_one_clear_sentence(self, tmp_path, monkeypatch, source):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty").mkdir()
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "a.txt").write_text("no photo")
        with pytest.raises(UserError) as error:
            find_photos(source)
        assert "\n" not in str(error.value)
        assert "give" in str(error.value)

    def test_the_error_names_the_telling_file(self, tmp_path):
        (tmp_path / "a.json").write_text("{}")
        (tmp_path / "b.jpg").write_bytes(b"")
        with pytest.raises(UserError, match=r"b\.jpg: empty"):
            find_photos(tmp_path)

    def test_frames_are_asked_of_videos_only(self, tmp_path):
        save(tmp_path / "a.png")
        with pytest.raises(UserError, match="Only a video"):
            find_photos(tmp_path, every=2)


class TestSkipped:
    def test_everything_a_folder_may_hold(self, tmp_path):
        good = save(tmp_path / "good.jpg", picture(1, 640, 480), quality=90)
        data = good.read_bytes()
        (tmp_path / "empty.jpg").write_bytes(b"")
        (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
        (tmp_path / "text.jpg").write_text("this is text")
        (tmp_path / "notes.txt").write_text("this is text")
        (tmp_path / "movie.mp4").write_bytes(b"\0" * 100)
        (tmp_path / "copy.jpg").write_bytes(data)
        save(tmp_path / "icon.png", picture(2, 63, 300))
        save(tmp_path / "strip.png", picture(2, 2000, 100))
        save(tmp_path / "depth_values.tif", Image.fromarray(np.ones((100, 100), np.float32)))
        found = find_photos(tmp_path)
        assert names(found) == ["copy.jpg"]
        why = reasons(found)
        assert why["good.jpg"] == "the same picture as copy.jpg"
        assert why["empty.jpg"] == "empty"
        assert why["notes.txt"] == "not a picture"
        for name, word in {
            "cut.jpg": "truncated",
            "text.jpg": "damaged",
            "movie.mp4": "video",
            "icon.png": "too small: 63 x 300",
            "strip.png": "too narrow",
            "depth_values.tif": "colours",
        }.items():
            assert word in why[name], name
        assert len(found.skipped) == 9

    def test_the_same_pixels_in_another_file(self, tmp_path):
        image = picture(0, 640, 480)
        save(tmp_path / "a.png", image, compress_level=1)
        save(tmp_path / "b.png", image, compress_level=9)
        save(tmp_path / "c.jpg", image)
        comment = save(tmp_path / "d.jpg", image, comment="again")
        assert comment.read_bytes() != (tmp_path / "c.jpg").read_bytes()
        save(tmp_path / "e.png", image.transpose(Image.Transpose.ROTATE_180))
        found = find_photos(tmp_path)
        assert names(found) == ["a.png", "c.jpg", "e.png"]
        assert reasons(found) == {"b.png": "the same picture as a.png", "d.jpg": "the same picture as c.jpg"}

    def test_maps_that_belong_to_a_photo(self, tmp_path):
        save(tmp_path / "000.JPG")
        save(tmp_path / "000_depth.png", Image.fromarray(np.full((120, 160), 5000, np.uint16)))
        save(tmp_path / "000_mask.png", picture(4).convert("L"))
        save(tmp_path / "lonely_depth.png")
        found = find_photos(tmp_path)
        assert names(found) == ["000.JPG", "lonely_depth.png"]
        assert reasons(found) == {"000_depth.png": "belongs to 000.JPG", "000_mask.png": "belongs to 000.JPG"}

    def test_a_picture_too_large_is_not_decoded(self, tmp_path):
        (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000, zlib.compress(bytes(10_000_000))))
        save(tmp_path / "a.png")
        assert "too large: 100000 x 100000" in reasons(find_photos(tmp_path))["bomb.png"]

    def test_our_limit_stands_in_for_pillow_s(self, tmp_path, monkeypatch):
        save(tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            photo = find_photos(tmp_path).photos[0]
            assert photo.load().size == (160, 120)
        assert Image.MAX_IMAGE_PIXELS == 1000
        monkeypatch.setattr(decode, "MAX_PIXELS", 19_199)
        with pytest.raises(UserError, match="too large: 160 x 120"):
            find_photos(tmp_path)

    def test_a_file_that_may_not_be_read(self, tmp_path):
        save(tmp_path / "a.png")
        (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
        os.mkfifo(tmp_path / "pipe.png")
        assert names(find_photos(tmp_path)) == ["a.png"]
        with pytest.raises(UserError, match="not a file"):
            find_photos(tmp_path / "pipe.png")

    def test_a_photo_that_vanishes_or_changes_is_a_user_error(self, tmp_path):
        path = save(tmp_path / "a.png")
        photo = find_photos(tmp_path).photos[0]
        save(path, picture(1, 200, 100))
        with pytest.raises(UserError, match="changed"):
            make_view(photo, ImageRule())
        path.unlink()
        with pytest.raises(UserError, match=r"a\.png can no longer be used"):
            make_view(photo, ImageRule())


def png(width: int, height: int, data: bytes) -> bytes:
    """An 8-bit grey PNG with the given compressed data, whatever it promises in its header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def encoded(suffix: str) -> bytes:
    image = picture(5, 96, 80)
    ImageDraw.Draw(image).ellipse((20, 20, 60, 60), fill="red")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    buffer = io.BytesIO()
    Image.init()
    image.save(buffer, Image.registered_extensions()[suffix], exif=exif)
    return buffer.getvalue()


class TestHostile:
    """Whatever bytes come, the answer is a photo, a reason, or a ``UserError``."""

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".heic", ".avif", ".bmp", ".jp2"])
    def test_cut_files(self, tmp_path, suffix):
        data = encoded(suffix)
        step = max(1, len(data) // 60)
        for length in range(1, len(data), step):
            (tmp_path / f"{length}{suffix}").write_bytes(data[:length])
        save(tmp_path / "good.png")
        found = find_photos(tmp_path)
        assert "good.png" in names(found)
        make_views(found.photos, ImageRule(64))

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".heic", ".avif"])
    def test_flipped_bytes(self, tmp_path, suffix):
        data = np.frombuffer(encoded(suffix), np.uint8)
        rng = np.random.default_rng(0)
        for k in range(40):
            damaged = data.copy()
            where = rng.integers(0, min(len(data), 400 if k % 2 else len(data)), 1 + k % 4)
            damaged[where] = rng.integers(0, 256, len(where))
            (tmp_path / f"{k}{suffix}").write_bytes(damaged.tobytes())
        save(tmp_path / "good.png")
        found = find_photos(tmp_path)
        assert "good.png" in names(found)
        make_views(found.photos, ImageRule(64))

    @given(
        start=st.sampled_from(
            [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0", b"RIFF\0\0\0\0WEBP", b"BM", b"P6"]
        ),
        rest=st.binary(max_size=200),
        name=st.sampled_from(["a.jpg", "a.png", "a.tif", "a.mp4", "a.gif", "a"]),
    )
    @settings(max_examples=150, deadline=None)
    def test_random_bytes(self, tmp_path_factory, start, rest, name):
        path = tmp_path_factory.mktemp("random") / name
        path.write_bytes(start + rest)
        with pytest.raises(UserError):
            find_photos(path)
