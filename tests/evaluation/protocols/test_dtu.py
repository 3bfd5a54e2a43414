import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from tests.evaluation.protocols.made import room
from tests.tasks.perfect import PerfectModel
from unposed.evaluation.datasets.dtu import Reference
from unposed.evaluation.protocols import dtu
from unposed.evaluation.protocols.dtu import DtuScans, score_scan, thin
from unposed.geometry.cameras import pointmap_from_depth
from unposed.geometry.transforms import transform_points


def _plane(step: float, height: float = 0.0) -> torch.Tensor:
    """Points 20 x 20 on a table at some height."""
    line = torch.arange(0, 20, step)
    x, y = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.full((len(line) ** 2,), height)], -1)


def _reference(points: torch.Tensor) -> Reference:
    volume = torch.ones(22, 22, 22, dtype=torch.bool)
    return Reference(points, volume, torch.tensor([-0.5, -0.5, -1.0]), 1.0, torch.tensor([0.0, 0.0, 1.0, 0.5]))


def test_distances_by_hand() -> None:
    truth = torch.cat([_plane(0.5), torch.tensor([[5.0, 5.0, -1.0]])])  # one point of the scan is below the table
    predicted = torch.cat([_plane(0.5, 3.0), torch.tensor([[500.0, 0, 0]])])  # one is not in the observed volume
    assert score_scan(predicted, _reference(truth)) == pytest.approx(
        {"accuracy": 3.0, "completeness": 3.0, "overall": 3.0}
    )


def test_distances_over_twenty_millimetres_do_not_count() -> None:
    half = _plane(0.5)[:1]
    scores = score_scan(half, _reference(torch.cat([half, half + torch.tensor([0, 50.0, 0])])))
    assert scores == {"accuracy": 0, "completeness": 0, "overall": 0}
    assert score_scan(half + 100, _reference(half))["overall"] == 20


def test_thinned_points_keep_their_distance_and_leave_no_hole() -> None:
    points = np.random.default_rng(0).uniform(0, 1, (3000, 3))
    thinned = thin(points, 0.1)
    assert cKDTree(thinned).query(thinned, 2)[0][:, 1].min() > 0.1
    assert cKDTree(thinned).query(points)[0].max() <= 0.1


def test_a_scan_is_reconstructed_with_its_own_cameras(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, sequence = room(tmp_path / "root" / "scan7" / "images", views=3, name="scan7")
    asked = []

    def read_reference(root, scan):
        asked.append((root, scan))
        points = torch.cat([world_points(frame) for frame in sequence.frames])
        volume = torch.ones(60, 60, 60, dtype=torch.bool)
        return Reference(points, volume, torch.full((3,), -30.0), 1.0, torch.tensor([0.0, 0.0, 0.0, 1.0]))

    monkeypatch.setattr(dtu, "read_reference", read_reference)
    row = DtuScans(PerfectModel(truth)).score(sequence)
    assert asked == [(tmp_path / "root", 7)]
    assert row["registered"] == 3
    assert row["overall"] < 0.1  # in the unit of the room, which is five of them wide
    assert DtuScans(PerfectModel(truth)).failed(sequence)["overall"] == 20


def world_points(frame) -> torch.Tensor:
    points = pointmap_from_depth(frame.depth()[::2, ::2], frame.camera.intrinsics / torch.tensor([[2.0], [2.0], [1.0]]))
    return transform_points(frame.camera.world_from_camera, points).reshape(-1, 3)
