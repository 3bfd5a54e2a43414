import numpy as np
import pytest

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import kitti

DRIVE, SIZE = "2011_09_26_drive_0002_sync", (40, 20)
WORDS = np.full((20, 40), 256 * 12.5)
WORDS[0, 0] = 0


def check_depth(frame):
    depth = frame.depth()
    assert depth[0, 0] == 0
    assert depth[3, 4] == 12.5


def test_official_layout(tmp_path):
    for k in (5, 6, 7):
        made.write_picture(tmp_path / "2011_09_26" / DRIVE / "image_02" / "data" / f"{k:010d}.png", SIZE)
    for k in (5, 7):
        made.write_words(tmp_path / "val" / DRIVE / f"proj_depth/groundtruth/image_02/{k:010d}.png", WORDS)
    (drive,) = kitti.read(tmp_path)
    assert drive.name == DRIVE
    assert [frame.photo.name for frame in drive.frames] == ["0000000005.png", "0000000007.png"]
    assert drive.frames[1].photo.path.is_file()
    assert len(kitti.read(tmp_path, count=1)[0].frames) == 1
    check_depth(drive.frames[0])
    with pytest.raises(UserError, match="0005"):
        kitti.read(tmp_path, ["2011_09_26_drive_0005_sync"])


def test_gathered_layout(tmp_path):
    folder = tmp_path / "depth_selection" / "val_selection_cropped"
    made.write_picture(folder / "image_gathered" / "2011_09_26_drive_0002_sync_02" / "0000000005.png", SIZE)
    made.write_words(folder / "groundtruth_depth_gathered" / "2011_09_26_drive_0002_sync_02" / "0000000005.png", WORDS)
    (drive,) = kitti.read_gathered(tmp_path)
    assert drive.frames[0].photo.size == SIZE
    check_depth(drive.frames[0])


def test_selection_of_single_photos(tmp_path):
    folder = tmp_path / "depth_selection" / "val_selection_cropped"
    name = f"{DRIVE}_image_0000000005_image_02"
    made.write_picture(folder / "image" / f"{name}.png", SIZE)
    made.write_words(folder / "groundtruth_depth" / f"{DRIVE}_groundtruth_depth_0000000005_image_02.png", WORDS)
    made.write_text(folder / "intrinsics" / f"{name}.txt", "721.5 0 596.5 0 722.5 149.8 0 0 1")
    (single,) = kitti.read_selection(tmp_path)
    assert single.name == name
    (frame,) = single.frames
    assert frame.intrinsics[1].tolist() == pytest.approx([0, 722.5, 149.8])
    check_depth(frame)
    with pytest.raises(UserError, match="nothing"):
        kitti.read_selection(tmp_path, ["nothing"])


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match="val"):
        kitti.read(tmp_path)
    made.write_words(tmp_path / "val" / DRIVE / "proj_depth/groundtruth/image_02/0000000005.png", WORDS)
    with pytest.raises(UserError, match="raw photos"):
        kitti.read(tmp_path)
    with pytest.raises(UserError, match="groundtruth_depth_gathered"):
        kitti.read_gathered(tmp_path)
