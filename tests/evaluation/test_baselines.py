from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from unposed.errors import UserError
from unposed.evaluation.baselines import sift_pose
from unposed.evaluation.datasets.base import Frame, PosedPair
from unposed.evaluation.photo_sets import read
from unposed.evaluation.pose import pose_error
from unposed.geometry.transforms import invert_rigid
from unposed.io.photos import find_photos
from unposed.tasks.synth import synthesize


def _pair(directory: Path) -> PosedPair:
    synthesize(directory, photos=2, kind="clutter", seed=3, width=320, height=240)
    a, b = read(directory)[0].frames
    assert a.camera is not None
    assert b.camera is not None
    return PosedPair("a b", a, b, invert_rigid(b.camera.world_from_camera) @ a.camera.world_from_camera)


def test_sift_finds_the_pose_of_a_textured_pair(tmp_path: Path) -> None:
    pair = _pair(tmp_path / "set")
    found = sift_pose(pair)
    assert pose_error(found, pair.b_from_a).item() < 3
    assert found[:3, 3].norm().item() == pytest.approx(1)


def test_what_sift_cannot_do_is_said(tmp_path: Path) -> None:
    pair = _pair(tmp_path / "set")
    Image.new("RGB", (320, 240)).save(tmp_path / "black.png")
    black = Frame(find_photos(tmp_path / "black.png").photos[0], pair.a.camera)
    with pytest.raises(UserError, match="only 0 SIFT matches"):
        sift_pose(PosedPair("dark", pair.a, black, torch.eye(4)))
    with pytest.raises(UserError, match="camera"):
        sift_pose(replace(pair, b=replace(pair.b, camera=None)))
