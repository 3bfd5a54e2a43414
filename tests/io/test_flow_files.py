import struct

import cv2
import numpy as np
import pytest
import torch

from unposed.errors import UserError
from unposed.io.flow_files import (
    read_disparity,
    read_flo,
    read_flow,
    read_pfm,
    write_disparity_pfm,
    write_disparity_png,
    write_flo,
    write_flow_png,
    write_pfm,
)


def _flow() -> torch.Tensor:
    flow = torch.randn(5, 7, 2, generator=torch.Generator().manual_seed(0)) * 30
    flow[1, 2] = torch.nan
    return flow


def _disparity() -> torch.Tensor:
    disparity = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) * 200 + 0.01
    disparity[3, 4] = 0
    return disparity


def test_flo_round_trip_and_layout(tmp_path):
    flow = _flow()
    write_flo(tmp_path / "a.flo", flow)
    torch.testing.assert_close(read_flow(tmp_path / "a.flo"), flow, equal_nan=True)
    data = (tmp_path / "a.flo").read_bytes()
    assert data[:4] == b"PIEH"
    assert struct.unpack("<ii", data[4:12]) == (7, 5)
    assert struct.unpack("<ff", data[12:20]) == tuple(flow[0, 0].tolist())


def test_pfm_is_bottom_up_and_comes_in_both_byte_orders_and_in_colour(tmp_path):
    values = torch.arange(6.0).reshape(2, 3)
    write_pfm(tmp_path / "a.pfm", values)
    data = (tmp_path / "a.pfm").read_bytes()
    assert data.startswith(b"Pf\n3 2\n-1")
    assert struct.unpack("<f", data[-4:])[0] == 2  # the last value in the file is the end of the first row
    assert torch.equal(read_pfm(tmp_path / "a.pfm"), values)
    big = values.flip(0).numpy().astype(">f4").tobytes()
    (tmp_path / "big.pfm").write_bytes(b"Pf\n3 2\n1.0\n" + big)
    assert torch.equal(read_pfm(tmp_path / "big.pfm"), values)
    (tmp_path / "colour.pfm").write_bytes(b"PF\n1 2\n1\n" + big)
    assert torch.equal(read_pfm(tmp_path / "colour.pfm"), values.reshape(2, 1, 3))
    with pytest.raises(UserError, match="colour"):
        read_disparity(tmp_path / "colour.pfm")


def test_pfm_whose_first_value_looks_like_white_space(tmp_path):
    value = struct.unpack("<f", b"\n \t\n")[0]
    write_pfm(tmp_path / "a.pfm", torch.full((1, 2), value))
    assert torch.equal(read_pfm(tmp_path / "a.pfm"), torch.full((1, 2), value))


def test_disparity_round_trips_and_unknown_stays_unknown(tmp_path):
    disparity = _disparity()
    write_disparity_pfm(tmp_path / "a.pfm", disparity)
    assert torch.equal(read_disparity(tmp_path / "a.pfm"), disparity)
    assert torch.isinf(read_pfm(tmp_path / "a.pfm")[3, 4])
    write_disparity_png(tmp_path / "a.png", disparity)
    again = read_disparity(tmp_path / "a.png")
    torch.testing.assert_close(again, disparity, atol=1 / 512, rtol=0)
    assert again[3, 4] == 0
    assert cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[0, 0] == round(float(disparity[0, 0]) * 256)


def test_tiny_disparities_do_not_become_unknown_in_kittis_png(tmp_path):
    write_disparity_png(tmp_path / "a.png", torch.full((2, 2), 1e-4))
    assert (read_disparity(tmp_path / "a.png") > 0).all()


def test_kitti_flow_round_trip_and_channels(tmp_path):
    flow = _flow()
    write_flow_png(tmp_path / "a.png", flow)
    torch.testing.assert_close(read_flow(tmp_path / "a.png"), flow, atol=1 / 128, rtol=0, equal_nan=True)
    rgb = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert rgb.dtype == np.uint16
    assert rgb[0, 0].tolist() == [*(flow[0, 0] * 64 + 2**15).round().int().tolist(), 1]
    assert rgb[1, 2, 2] == 0


def test_what_kittis_formats_cannot_hold_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"300 pixels.*\.pfm"):
        write_disparity_png(tmp_path / "a.png", torch.full((2, 2), 300.0))
    with pytest.raises(UserError, match=r"512 pixels.*\.flo"):
        write_flow_png(tmp_path / "a.png", torch.full((2, 2, 2), -600.0))
    assert not (tmp_path / "a.png").exists()


def test_damaged_and_foreign_files_end_in_one_sentence(tmp_path):
    write_flo(tmp_path / "good.flo", _flow())
    write_disparity_pfm(tmp_path / "good.pfm", _disparity())
    write_disparity_png(tmp_path / "good.png", _disparity())
    grey = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    cases = {
        "cut.flo": ((tmp_path / "good.flo").read_bytes()[:-3], "does not hold"),
        "short.flo": (b"PIEH", "no .flo"),
        "huge.flo": (b"PIEH" + struct.pack("<ii", 2**30, 2**30), "does not hold"),
        "minus.flo": (b"PIEH" + struct.pack("<ii", -1, -1) + bytes(8), "does not hold"),
        "other.flo": (bytes(40), "no .flo"),
        "cut.pfm": ((tmp_path / "good.pfm").read_bytes()[:-3], "does not hold"),
        "other.pfm": (b"P6\n2 2\n255\n", "no .pfm"),
        "empty.pfm": (b"", "no .pfm"),
        "cut.png": ((tmp_path / "good.png").read_bytes()[:20], "no PNG"),
        "empty.png": (b"", "no PNG"),
        "8bit.png": (grey, "16-bit"),
    }
    for name, (data, word) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=word):
            (read_flow if name.endswith(".flo") else read_disparity)(tmp_path / name)
    with pytest.raises(UserError, match="one channel"):
        read_flow(tmp_path / "good.png")
    with pytest.raises(UserError, match=r"none of \.flo or \.png"):
        read_flow(tmp_path / "x.jpg")
    with pytest.raises(UserError, match="cannot be read"):
        read_flo(tmp_path / "nowhere.flo")
