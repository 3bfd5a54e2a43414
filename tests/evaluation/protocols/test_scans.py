import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.protocols.made import room
from tests.evaluation.protocols.test_dtu import world_points
from tests.tasks.perfect import PerfectModel
from unposed.errors import UserError
from unposed.evaluation.datasets.base import FrameSequence
from unposed.evaluation.protocols import scans
from unposed.evaluation.protocols.scans import Scans, tanks_crop, tanks_distances, voxel_means
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.io.photos import make_views
from unposed.scene import Scene, SceneView


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PerfectModel, FrameSequence]:
    """A room with its scan; reconstruct gives the true scene in another frame and scale."""
    truth, sequence = room(tmp_path / "Barn", views=3, name="Barn")
    model = PerfectModel(truth)
    views = make_views([frame.photo for frame in sequence.frames], model.image_rule)
    items = [
        SceneView(view, frame.camera, model._depth(view), torch.full(view.size, 5.0))
        for view, frame in zip(views, sequence.frames, strict=True)
    ]
    turn = matrix_from_axis_angle(torch.tensor([0.4, -1.0, 0.3]))
    scene = Scene(tuple(items)).transformed(0.3, turn, torch.tensor([1.0, 2.0, 3.0]))
    monkeypatch.setattr(scans, "reconstruct", lambda *_, **__: scene)
    points = torch.cat([world_points(frame) for frame in sequence.frames])
    return model, replace(sequence, points=lambda: points)


def test_the_true_scene_is_found_in_any_frame_and_scale(made) -> None:
    model, sequence = made
    row = Scans(model, lambda _: (0.05, 0.2), headline=1).score(sequence)
    assert row["f_score"] == row["f_score@0.2"] > 99
    assert row["f_score@0.05"] < row["f_score@0.2"]
    refined = Scans(model, lambda _: (0.2,), refine=True).score(sequence)
    assert refined["f_score"] > 99


def test_what_lies_outside_the_crop_is_not_scored(made, tmp_path: Path) -> None:
    model, sequence = made
    points = sequence.points()
    low, middle = float(points[:, 0].min()), float(points[:, 0].median())
    spoilt = torch.where((points[:, :1] > middle), points + torch.tensor([0.0, 50, 0]), points)
    sequence = replace(sequence, points=lambda: spoilt)
    far = 1000.0
    box = {"orthogonal_axis": "X", "axis_min": low - 1, "axis_max": middle - 0.2,
           "bounding_polygon": [[0, -far, -far], [0, far, -far], [0, far, far], [0, -far, far]]}  # fmt: skip
    (tmp_path / "Barn.json").write_text(json.dumps(box))
    assert Scans(model, lambda _: (0.2,)).score(sequence)["f_score"] < 90
    assert Scans(model, lambda _: (0.2,), tanks_crop).score(sequence)["f_score"] > 98


def test_what_cannot_be_scored_is_said_and_counts_nothing(made) -> None:
    model, sequence = made
    assert tanks_distances(sequence) == (0.01,)
    with pytest.raises(UserError, match="no public scan"):
        tanks_distances(replace(sequence, name="Horse"))
    with pytest.raises(UserError, match="no laser scan"):
        Scans(model, tanks_distances).score(replace(sequence, points=None))
    unposed = replace(sequence, frames=tuple(replace(frame, camera=None) for frame in sequence.frames))
    with pytest.raises(UserError, match="aligned"):
        Scans(model, tanks_distances).score(unposed)
    assert Scans(model, tanks_distances).failed(sequence)["f_score"] == 0


def test_one_point_a_voxel() -> None:
    points = np.array([[0.1, 0.1, 0.1], [0.3, 0.1, 0.1], [-0.1, 0.1, 0.1]])
    np.testing.assert_allclose(voxel_means(points, 0.5), [[-0.1, 0.1, 0.1], [0.2, 0.1, 0.1]])
    assert len(voxel_means(points[:0], 0.5)) == 0
