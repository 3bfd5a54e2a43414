import contextlib

import numpy as np
import OpenEXR
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unposed.errors import UserError
from unposed.io import exr
from unposed.io.exr import read_exr, write_exr


def save(path, **channels):
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, channels).write(str(path))


def ramp(kind="f4"):
    return np.arange(6 * 8, dtype=kind).reshape(6, 8)


def test_a_map_comes_back_as_it_was(tmp_path):
    values = torch.rand(30, 50) * 1e6
    values[0, :3] = torch.tensor([0.0, float("inf"), float("nan")])
    write_exr(tmp_path / "new" / "é.exr", values)
    back = read_exr(tmp_path / "new" / "é.exr")
    assert back.dtype == torch.float32
    assert torch.equal(back.view(torch.int32), values.view(torch.int32))


def test_depth_is_in_the_channel_that_openexr_reserves_for_it(tmp_path):
    write_exr(tmp_path / "a.exr", torch.rand(4, 5))
    with OpenEXR.File(str(tmp_path / "a.exr"), separate_channels=True) as file:
        assert list(file.channels()) == ["Z"]


@pytest.mark.parametrize("kind", ["f2", "f4", "u4"])
def test_half_float_and_integer_channels(tmp_path, kind):
    save(tmp_path / "a.exr", Y=ramp(kind))
    assert torch.equal(read_exr(tmp_path / "a.exr"), torch.from_numpy(ramp()))


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("R", "G", "B"), "R"),
        (("R", "G", "B", "A", "Z"), "Z"),
        (("A", "Y"), "Y"),
        (("ViewLayer.Combined.R", "ViewLayer.Depth.Z", "ViewLayer.Combined.B"), "ViewLayer.Depth.Z"),
        (("left.Z", "Z"), "Z"),
        (("distance",), "distance"),
    ],
)
def test_the_channel_that_means_depth_is_found(tmp_path, names, taken):
    save(tmp_path / "a.exr", **{name: ramp() + 100 * (name == taken) for name in names})
    assert float(read_exr(tmp_path / "a.exr").min()) == 100


def test_a_channel_can_be_named(tmp_path):
    save(tmp_path / "a.exr", Z=ramp(), near=ramp() + 7)
    assert float(read_exr(tmp_path / "a.exr", "near").min()) == 7
    with pytest.raises(UserError, match="no channel far; it has Z, near"):
        read_exr(tmp_path / "a.exr", "far")


def test_several_channels_without_a_telling_name_are_refused(tmp_path):
    save(tmp_path / "a.exr", one=ramp(), two=ramp())
    with pytest.raises(UserError, match="one, two"):
        read_exr(tmp_path / "a.exr")


def test_missing_and_huge_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no file"):
        read_exr(tmp_path / "none.exr")
    write_exr(tmp_path / "a.exr", torch.rand(20, 20))
    monkeypatch.setattr(exr, "MAX_PIXELS", 399)
    with pytest.raises(UserError, match="too large"):
        read_exr(tmp_path / "a.exr")


@pytest.mark.parametrize("content", [b"", b"hello", b"v/1\x01", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_what_is_no_openexr_file_is_refused(tmp_path, content):
    (tmp_path / "a.exr").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_exr(tmp_path / "a.exr")


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 0.99), changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4))
def test_damaged_files_are_read_or_refused(tmp_path_factory, cut, changes):
    path = tmp_path_factory.mktemp("exr") / "a.exr"
    write_exr(path, torch.rand(40, 60))
    data = bytearray(path.read_bytes())
    for place, byte in changes:
        data[int(place * (len(data) - 1))] = byte
    path.write_bytes(data[: int(len(data) * (1 - cut))])
    with contextlib.suppress(UserError):
        assert read_exr(path).dim() == 2


def test_an_unwritable_place_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        write_exr(tmp_path / "file" / "a.exr", torch.rand(4, 4))
