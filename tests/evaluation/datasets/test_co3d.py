import gzip
import json

import cv2
import numpy as np
import pytest
import torch

from tests.evaluation.datasets import made
from unposed.errors import UserError
from unposed.evaluation.datasets import co3d

SIZES = [(200, 150), (120, 180)]
INTRINSICS = [(210.0, 215.0, 104.0, 70.0), (205.0, 200.0, 55.5, 95.0)]
SCALE = 1.7


def cameras():
    return [made.camera(k, INTRINSICS[k], SIZES[k]) for k in range(2)]


def viewpoint(camera):
    """PyTorch3D's numbers for a camera: axes x left, y up; points are rows; isotropic NDC."""
    camera_from_world = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)) @ torch.linalg.inv(
        camera.world_from_camera
    )
    unit = min(camera.width, camera.height) / 2
    (fx, _, cx), (_, fy, cy), _ = camera.intrinsics.tolist()
    return {
        "R": camera_from_world[:3, :3].T.tolist(),
        "T": camera_from_world[:3, 3].tolist(),
        "focal_length": [fx / unit, fy / unit],
        "principal_point": [(camera.width / 2 - 0.5 - cx) / unit, (camera.height / 2 - 0.5 - cy) / unit],
        "intrinsics_format": "ndc_isotropic",
    }


def write_jgz(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(content).encode()))


def write_raw(root):
    category, frames = root / "apple", []
    for sequence in ("110_1", "bad"):
        for k, camera in enumerate(cameras()):
            stem = f"apple/{sequence}"
            paths = {
                "image": f"{stem}/images/frame{k + 1:06d}.jpg",
                "depth": f"{stem}/depths/frame{k + 1:06d}.jpg.geometric.png",
                "mask": f"{stem}/masks/frame{k + 1:06d}.png",
                "valid": f"{stem}/depth_masks/frame{k + 1:06d}.png",
            }
            made.write_picture(root / paths["image"], SIZES[k])
            bits = (made.depth(camera).numpy() / SCALE).astype(np.float16)
            bits[0, :2] = (np.nan, np.inf)
            made.write_words(root / paths["depth"], bits.view(np.uint16))
            made.write_picture(root / paths["mask"], SIZES[k], 255)
            made.write_picture(root / paths["valid"], SIZES[k], 255)
            valid = cv2.imread(str(root / paths["valid"]), cv2.IMREAD_GRAYSCALE)
            valid[5, 5] = 0
            cv2.imwrite(str(root / paths["valid"]), valid)
            frames.append(
                {
                    "sequence_name": sequence,
                    "frame_number": k + 1,
                    "frame_timestamp": k / 2,
                    "image": {"path": paths["image"], "size": [SIZES[k][1], SIZES[k][0]]},
                    "depth": {"path": paths["depth"], "scale_adjustment": SCALE, "mask_path": paths["valid"]},
                    "mask": {"path": paths["mask"], "mass": 1.0},
                    "viewpoint": viewpoint(camera),
                }
            )
    scores = [("110_1", 0.9), ("bad", 0.4)]
    write_jgz(category / "frame_annotations.jgz", frames)
    write_jgz(
        category / "sequence_annotations.jgz",
        [{"sequence_name": name, "viewpoint_quality_score": score} for name, score in scores],
    )
    chosen = [[f["sequence_name"], f["frame_number"], f["image"]["path"]] for f in frames]
    (category / "set_lists").mkdir()
    sets = json.dumps({"train": chosen[:1], "val": [], "test": chosen})
    (category / "set_lists" / "set_lists_fewview_dev.json").write_text(sets)


def test_raw_cameras_and_depth_agree(tmp_path):
    write_raw(tmp_path)
    (sequence,) = co3d.read(tmp_path)  # the other one is of poor quality
    assert sequence.name == "apple/110_1"
    assert not sequence.metric
    for k, frame in enumerate(sequence.frames):
        torch.testing.assert_close(frame.camera.world_from_camera.double(), made.pose(k), atol=1e-6, rtol=0)
        torch.testing.assert_close(frame.camera.intrinsics.double(), cameras()[k].intrinsics, atol=1e-4, rtol=0)
        assert (frame.camera.width, frame.camera.height) == frame.photo.size == SIZES[k]
    depth = sequence.frames[0].depth()
    assert depth[0, :2].tolist() == [0, 0]
    assert depth[5, 5] == 0  # outside the depth mask
    assert sequence.frames[0].mask().min() == 1
    made.assert_same_room(*sequence.frames)


def test_parts_of_a_set_list(tmp_path):
    write_raw(tmp_path)
    (sequence,) = co3d.read(tmp_path, part="train")
    assert len(sequence.frames) == 1
    with pytest.raises(UserError, match='"val"'):
        co3d.read(tmp_path, part="val")
    with pytest.raises(UserError, match="set_lists_manyview_test_0"):
        co3d.read(tmp_path, set_list="manyview_test_0")
    with pytest.raises(UserError, match="banana"):
        co3d.read(tmp_path, ["banana"])


def test_prepared_cameras_and_depth_agree(tmp_path):
    for k, camera in enumerate(cameras()):
        stem = tmp_path / "apple" / "110_1" / "images" / f"frame{k + 1:06d}"
        made.write_picture(stem.with_suffix(".jpg"), SIZES[k])
        depth = made.depth(camera).numpy()
        np.savez(
            stem.with_suffix(".npz"),
            camera_pose=made.pose(k).numpy(),
            camera_intrinsics=camera.intrinsics.numpy(),
            maximum_depth=depth.max(),
        )
        words = depth / depth.max() * 65535
        words[0, 0] = 0
        made.write_words(tmp_path / "apple" / "110_1" / "depths" / f"{stem.name}.jpg.geometric.png", words)
    (tmp_path / "selected_seqs_test.json").write_text(json.dumps({"apple": {"110_1": [1, 2]}}))
    (sequence,) = co3d.read_prepared(tmp_path)
    torch.testing.assert_close(sequence.frames[1].camera.world_from_camera.double(), made.pose(1))
    assert sequence.frames[1].photo.size == SIZES[1]
    assert sequence.frames[0].depth()[0, 0] == 0
    assert sequence.frames[0].mask is None
    made.assert_same_room(*sequence.frames)
    with pytest.raises(UserError, match="no category banana"):
        co3d.read_prepared(tmp_path, ["banana"])
    with pytest.raises(UserError, match=r"selected_seqs_train\.json"):
        co3d.read_prepared(tmp_path, part="train")
