import pytest
import torch

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import nrgbd

INTRINSICS, SIZE = (554.2562584220408, 554.2562584220408, 320.0, 240.0), (640, 480)


def write_scene(root):
    """Frames 0, 2 and 10; frame 2 has no valid pose. The camera axes are OpenGL's."""
    folder, rows = root / "kitchen", []
    for k, number in enumerate((0, 2, 10)):
        made.write_picture(folder / "images" / f"img{number}.png")
        words = 1000 * made.depth(made.camera(k, INTRINSICS, SIZE)).numpy()
        words[0, :2] = (0, 10001)
        made.write_words(folder / "depth" / f"depth{number}.png", words)
        opengl = made.pose(k) @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
        rows.append("\n".join(["nan nan nan nan"] * 4) if k == 1 else made.words(opengl))
    made.write_text(folder / "poses.txt", *rows)
    return folder


def test_axes_order_and_invalid_poses(tmp_path):
    write_scene(tmp_path)
    (scene,) = nrgbd.read(tmp_path)
    assert [frame.photo.name for frame in scene.frames] == [f"kitchen/img{k}.png" for k in (0, 2, 10)]
    first, invalid, last = scene.frames
    assert invalid.camera is None
    torch.testing.assert_close(last.camera.world_from_camera.double(), made.pose(2), atol=1e-6, rtol=0)
    assert first.depth()[0, :2].tolist() == [0, 0]
    made.assert_same_room(first, last)
    assert len(nrgbd.read(tmp_path, every=2)[0].frames) == 2


def test_what_is_missing_is_named(tmp_path):
    folder = write_scene(tmp_path)
    (folder / "images" / "img10.png").unlink()
    with pytest.raises(UserError, match="12 lines for 2 photos"):
        nrgbd.read(tmp_path)
    with pytest.raises(UserError, match="attic"):
        nrgbd.read(tmp_path, ["attic"])
