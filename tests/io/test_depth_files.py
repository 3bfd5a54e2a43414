import json

import cv2
import numpy as np
import pytest
import torch

from tests.factories import box_scene
from unposed.io.depth_files import at_original_size, depth_at_original_size, unique_stems, write_depth
from unposed.views import View


@pytest.mark.parametrize("metric", [True, False])
def test_png_and_npz_hold_the_depth(tmp_path, metric):
    item = box_scene().views[0]
    depth = item.depth.clone()
    depth[:3] = 0
    write_depth(tmp_path / "left" / "a", depth, item.camera.intrinsics, item.confidence, metric=metric)
    facts = json.loads((tmp_path / "left" / "a_depth.json").read_text())
    values = cv2.imread(str(tmp_path / "left" / "a_depth.png"), cv2.IMREAD_UNCHANGED)
    assert values.dtype == np.uint16
    assert facts["metric"] is metric
    assert facts["unit"] == (0.001 if metric else pytest.approx(float(depth.max()) / 65535))
    assert np.abs(values * facts["unit"] - depth.numpy()).max() <= facts["unit"] / 2 + 1e-6
    assert (values[:3] == 0).all()
    with np.load(tmp_path / "left" / "a_depth.npz") as arrays:
        assert set(arrays) == {"depth", "confidence", "intrinsics", "metric"}
        assert np.array_equal(arrays["depth"], depth.numpy())
        assert np.array_equal(arrays["intrinsics"], item.camera.intrinsics.numpy())
        assert bool(arrays["metric"]) is metric


def test_metric_depth_beyond_16_bits_of_millimetres_keeps_its_range(tmp_path):
    depth = torch.tensor([[1.0, 650.0, float("inf"), float("nan"), 1e-9]])
    write_depth(tmp_path / "a", depth, torch.eye(3), metric=True)
    unit = json.loads((tmp_path / "a_depth.json").read_text())["unit"]
    values = cv2.imread(str(tmp_path / "a_depth.png"), cv2.IMREAD_UNCHANGED)[0]
    assert values[1] == 65535
    assert values[1] * unit == pytest.approx(650)
    assert values[2] == values[3] == 0
    assert values[4] == 1  # known, however near


def test_maps_of_the_original_size_agree_with_its_camera():
    """Depth of the room's planes at original pixels, which the view saw at a quarter of the resolution."""
    item = box_scene(size=(96, 128), original_size=(528, 384)).views[1]
    large = at_original_size(item.depth, item.view)
    assert large.shape == (item.camera.height, item.camera.width)
    y, x = torch.meshgrid(torch.arange(20, 380, 8.0), torch.arange(20, 500, 8.0), indexing="ij")
    affine = torch.linalg.inv(item.view.original_from_view)
    u, v = affine[0, 0] * x + affine[0, 2], affine[1, 1] * y + affine[1, 2]
    expected = item.depth[v.round().long(), u.round().long()]
    assert torch.equal(large[y.long(), x.long()], expected)
    assert (large[:, 0] == 0).all()  # cropped away
    assert (large[:, -1] == 0).all()


def _enlarged(depth, factor=5):
    """Depth at the pixels of a photo ``factor`` times larger."""
    height, width = depth.shape
    shift = (factor - 1) / 2
    affine = torch.tensor([[factor, 0, shift], [0, factor, shift], [0, 0, 1]], dtype=torch.float64)
    image = torch.zeros(height, width, 3, dtype=torch.uint8)
    return depth_at_original_size(depth, View("a", image, affine, (factor * width, factor * height)))


def test_a_slanted_plane_stays_plane_between_pixels():
    u = torch.arange(30).float()
    depth = (1 / (0.5 - 0.005 * u)).expand(20, 30).contiguous()
    original = (torch.arange(150).float() - 2) / 5
    expected = 1 / (0.5 - 0.005 * original)
    inside = slice(2, 147)
    error = (_enlarged(depth)[:, inside] / expected[inside] - 1).abs()
    assert error.max() < 2e-4  # the nearest pixel would be 0.4 % off


def test_no_depth_is_invented_between_two_surfaces_or_beside_the_unknown():
    depth = torch.ones(20, 30)
    depth[:, 10:] = 2.0
    depth[5:8, 20:25] = 0
    large = _enlarged(depth)
    assert set(large.unique().tolist()) == {0.0, 1.0, 2.0}
    assert torch.equal(large, depth.repeat_interleave(5, 0).repeat_interleave(5, 1))


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["a.jpg", "b/a.jpg"], ["a", "b/a"]),
        (["a.jpg", "a.png", "b.png"], ["a.jpg", "a.png", "b"]),
        (["a.jpg", "A.JPG"], ["a.jpg", "A.JPG_2"]),
        (["a.jpg", "a.png", "a.png.webp"], ["a.jpg", "a.png", "a.png_2"]),
    ],
)
def test_no_two_photos_share_a_stem(names, stems):
    assert unique_stems(names) == stems
