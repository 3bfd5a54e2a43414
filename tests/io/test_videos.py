"""Frames of videos: which are chosen, that they stand upright, and what damaged files give."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from unposed.errors import UserError
from unposed.io.photos import ImageRule, PhotoSet, find_photos, make_views

WIDTH, HEIGHT = 192, 128


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.width, stream.height = frames[0].shape[1], frames[0].shape[0]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def numbered_frames(count: int) -> list[np.ndarray]:
    """Frame k is uniformly bright: 40 + 4 k, with a texture so that no two are alike."""
    texture = np.random.default_rng(0).integers(0, 6, (HEIGHT // 8, WIDTH // 8, 1)).repeat(8, 0).repeat(8, 1)
    return [np.broadcast_to(40 + 4 * k + texture, (HEIGHT, WIDTH, 3)).astype(np.uint8) for k in range(count)]


def numbers(found: PhotoSet) -> list[int]:
    return [int(photo.name.removeprefix("frame_").removesuffix(".jpg")) for photo in found.photos]


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "walk.mp4", numbered_frames(50))


def test_every_nth_frame(video):
    found = find_photos(video, every=7)
    assert numbers(found) == [0, 7, 14, 21, 28, 35, 42, 49]
    assert [photo.name for photo in found.photos][:2] == ["frame_000000.jpg", "frame_000007.jpg"]
    assert all(photo.path is None and photo.size == (WIDTH, HEIGHT) for photo in found.photos)
    assert not found.skipped


def test_the_frames_are_the_numbers_they_say(video):
    for number, photo in zip(range(0, 50, 10), find_photos(video, every=10).photos, strict=True):
        assert np.asarray(photo.load()).mean() == pytest.approx(42.5 + 4 * number, abs=3)


def test_evenly_spread_frames(video):
    assert numbers(find_photos(video, frames=8)) == [0, 7, 14, 21, 28, 35, 42, 49]
    assert numbers(find_photos(video, frames=1)) == [0]
    assert numbers(find_photos(video, frames=1000)) == list(range(50))


def test_up_to_forty_frames_by_default(video):
    chosen = numbers(find_photos(video))
    assert len(chosen) == 40
    assert (chosen[0], chosen[-1]) == (0, 49)


def test_frames_become_views(video):
    views = make_views(find_photos(str(video), frames=3).photos, ImageRule(64))
    assert [view.size for view in views] == [(32, 64)] * 3
    assert all(view.path is None for view in views)


def test_frames_spread_over_motion(tmp_path):
    """The camera rests for 30 frames, then pans over 30: nearly all chosen frames are of the pan."""
    rng = np.random.default_rng(1)
    wide = Image.fromarray(rng.integers(0, 256, (16, 80, 3), dtype=np.uint8)).resize((640, HEIGHT), Image.BICUBIC)
    scene = np.asarray(wide)
    shifts = [0] * 30 + [4 * k for k in range(30)]
    frames = [np.ascontiguousarray(scene[:, shift : shift + WIDTH]) for shift in shifts]
    path = write_video(tmp_path / "pan.mp4", frames)
    chosen = numbers(find_photos(path, frames=8, by_motion=True))
    assert len(chosen) == 8
    assert sum(number >= 28 for number in chosen) >= 7
    pan = [number for number in chosen if number >= 30]
    assert np.diff(pan).max() <= 6
    assert sum(number >= 28 for number in numbers(find_photos(path, frames=8))) == 4


def test_a_resting_camera_gives_each_picture_once(tmp_path):
    found = find_photos(write_video(tmp_path / "still.avi", numbered_frames(1) * 12), every=1)
    assert len(found.photos) + len(found.skipped) == 12
    assert len(found.photos) < 12
    assert all("the same picture" in skipped.reason for skipped in found.skipped)


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((0, 1, 0, -1, 0, 0), lambda a: np.rot90(a, -1)),  # held upright: shown turned by 90 degrees clockwise
        ((-1, 0, 0, 0, -1, 0), lambda a: np.rot90(a, 2)),
        ((0, -1, 0, 1, 0, 0), lambda a: np.rot90(a, 1)),
    ],
)
def test_phone_videos_stand_upright(tmp_path, matrix, upright):
    """The display matrix in the track header (ISO 14496-12, 8.3.2) turns the frames."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[: HEIGHT // 2, : WIDTH // 2] = (230, 40, 40)
    pixels[HEIGHT // 2 :, : WIDTH // 2] = (40, 230, 40)
    path = write_video(tmp_path / "phone.mp4", [pixels] * 3)
    identity, turned = (
        b"".join(int(value * scale).to_bytes(4, "big", signed=True) for value, scale in zip(row, scales, strict=True))
        for scales in [(65536, 65536, 65536, 65536, 65536, 65536)]
        for row in [(1, 0, 0, 0, 1, 0), matrix]
    )
    data = path.read_bytes()
    header = data.index(b"tkhd")
    where = data.index(identity, header)
    path.write_bytes(data[:where] + turned + data[where + len(turned) :])
    (photo, *_) = find_photos(path, frames=1).photos
    expected = upright(pixels)
    assert photo.size == (expected.shape[1], expected.shape[0])
    assert np.abs(np.asarray(photo.load(), int) - expected).mean() < 8


def test_a_cut_video_gives_what_is_left(tmp_path):
    path = write_video(tmp_path / "a.avi", numbered_frames(40))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = find_photos(path, every=1)
    assert 5 < len(found.photos) < 40


def test_flipped_bytes_give_frames_or_a_user_error(tmp_path):
    data = np.frombuffer(write_video(tmp_path / "a.mp4", numbered_frames(12)).read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    outcomes = set()
    for k in range(60):
        damaged = data.copy()
        where = rng.integers(0, len(data), 30) if k % 2 else rng.integers(max(0, len(data) - 1200), len(data), 20)
        damaged[where] = rng.integers(0, 256, len(where))
        path = tmp_path / f"{k}.mp4"
        path.write_bytes(damaged.tobytes())
        try:
            for photo in find_photos(path, frames=4, by_motion=k % 3 == 0).photos:
                assert photo.load().size == photo.size
            outcomes.add("frames")
        except UserError:
            outcomes.add("error")
    assert outcomes == {"frames", "error"}


def test_a_playlist_in_disguise_is_not_followed(tmp_path):
    secret = write_video(tmp_path / "secret.ts", numbered_frames(5))
    path = tmp_path / "innocent.mp4"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{secret}\n#EXT-X-ENDLIST\n")
    with pytest.raises(UserError, match="No frame"):
        find_photos(path)


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\0" * 1000])
def test_no_video_is_one_clear_sentence(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"No frame of .*a\.mp4 can be decoded"):
        find_photos(path)


@pytest.mark.parametrize(
    "choice", [{"every": 0}, {"frames": 0}, {"every": 2, "frames": 3}, {"every": 2, "by_motion": True}]
)
def test_contradicting_choices(video, choice):
    with pytest.raises(UserError, match="every"):
        find_photos(video, **choice)


def test_a_video_of_an_odd_shape(tmp_path):
    wide = [np.ascontiguousarray(frame[:64].repeat(8, 1)) for frame in numbered_frames(3)]
    with pytest.raises(UserError, match="too narrow"):
        find_photos(write_video(tmp_path / "wide.mp4", wide), by_motion=True, frames=3)


def test_frames_too_small_for_photos(tmp_path):
    path = write_video(tmp_path / "tiny.mp4", [np.zeros((32, 48, 3), np.uint8)])
    with pytest.raises(UserError, match="too small: 48 x 32"):
        find_photos(path)
