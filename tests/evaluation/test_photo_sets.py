import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.align.synthetic import ring
from unposed.errors import UserError
from unposed.evaluation.photo_sets import read_reference, score_cameras
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import rigid


def _truth() -> dict:
    views, cameras = ring(4)
    return {view.name: camera for view, camera in zip(views, cameras, strict=True)}


def test_perfect_cameras_score_perfectly_in_any_frame_and_scale() -> None:
    truth = _truth()
    turn = rigid(matrix_from_axis_angle(torch.tensor([0.3, -1.0, 0.5])), torch.tensor([1.0, 2, 3]))
    moved = {}
    for name, camera in truth.items():
        pose = turn @ camera.world_from_camera
        pose[:3, 3] *= 7
        moved[name] = replace(camera, world_from_camera=pose)
    result = score_cameras(moved, truth)
    assert result["auc@5"] > 0.99
    assert result["rotation_median_deg"] < 0.01
    assert result["ate_over_extent"] < 1e-3
    assert result["focal_error_median"] < 1e-4


def test_an_unregistered_photo_costs_all_its_pairs() -> None:
    truth = _truth()
    found = dict(list(truth.items())[:3])
    result = score_cameras(found, truth)
    assert result["registered"] == 3
    assert result["auc@30"] == pytest.approx(0.5, abs=0.01)


def test_a_turned_camera_is_seen_in_degrees() -> None:
    truth = dict(list(_truth().items())[:2])
    name = max(truth)
    pose = truth[name].world_from_camera.clone()
    pose[:3, :3] = pose[:3, :3] @ matrix_from_axis_angle(torch.tensor([0.0, 0.0, torch.pi / 18]))
    result = score_cameras(truth | {name: replace(truth[name], world_from_camera=pose)}, truth)
    assert result["rotation_median_deg"] == pytest.approx(10, abs=0.05)


def test_reads_the_folder_format(tmp_path: Path) -> None:
    row = {
        "width": 64,
        "height": 48,
        "fx": 50,
        "fy": 51,
        "cx": 31.5,
        "cy": 23.5,
        "world_to_camera": torch.eye(4).tolist(),
    }
    (tmp_path / "gt.json").write_text(json.dumps({"images": {"a.jpg": row, "b.jpg": {**row, "world_to_camera": None}}}))
    cameras = read_reference(tmp_path)
    assert list(cameras) == ["a.jpg"]
    assert cameras["a.jpg"].intrinsics[1, 1] == 51
    with pytest.raises(UserError, match=r"gt\.json"):
        read_reference(tmp_path / "nowhere")
