"""Every protocol over sequences: a model that knows the truth has no error, one that fails is counted."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.evaluation.protocols.made import room
from tests.tasks.perfect import PerfectModel
from unposed.evaluation.datasets.base import FrameSequence, PosedPair
from unposed.evaluation.depth import DepthRule
from unposed.evaluation.protocols import clouds
from unposed.evaluation.protocols.base import run_protocol
from unposed.evaluation.protocols.camera_paths import CameraPaths
from unposed.evaluation.protocols.clouds import Clouds, same_scale
from unposed.evaluation.protocols.depth_maps import SingleDepth, VideoDepth
from unposed.evaluation.protocols.key_view_depth import KeyViewDepth, fuse
from unposed.evaluation.protocols.multiview_poses import MultiviewPoses
from unposed.evaluation.protocols.pair_poses import PairPoses
from unposed.evaluation.results import Results, Row
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import rigid
from unposed.io.photos import make_views
from unposed.scene import Scene, SceneView
from unposed.tasks.progress import Silent
from unposed.views import PairPrediction


class Broken(PerfectModel):
    """Fails like a model that runs out of memory."""

    def encode(self, views):
        raise RuntimeError("no memory left")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[PerfectModel, PerfectModel, FrameSequence]:
    truth, sequence = room(tmp_path_factory.mktemp("room") / "photos")
    return PerfectModel(truth), Broken(truth), sequence


def run(protocol, *items) -> tuple[list[Row], dict[str, float]]:
    rows = run_protocol(protocol, items, len(items), Results(None, {}), Silent())
    return rows, dict(protocol.summary(rows))


def test_multiview_poses(made) -> None:
    perfect, broken, sequence = made
    (row,), summary = run(MultiviewPoses(perfect, frames=3), sequence)
    assert summary["RRA@15"] == summary["RTA@15"] == 100
    assert summary["mAA@30"] > 95
    assert len(row["frames"]) == len(row["pairs_deg"]) == 3
    rows, summary = run(MultiviewPoses(broken, frames=3), sequence, replace(sequence, name="rooms/two"))
    assert summary["failed"] == 2
    assert summary["mAA@30"] == summary["RRA@15 over pairs"] == 0
    assert rows[0]["error"] == "RuntimeError: no memory left"


def test_frames_are_chosen_alike_every_time_but_not_alike_in_every_sequence(made) -> None:
    perfect, _, sequence = made
    many = replace(sequence, frames=tuple(replace(sequence.frames[0], time=float(k)) for k in range(50)))
    protocol = MultiviewPoses(perfect, frames=5)
    times = [[frame.time for frame in protocol.choose(item)] for item in (many, many, replace(many, name="rooms/two"))]
    assert times[0] == times[1] == sorted(times[0])
    assert times[0] != times[2]


def test_categories_are_averaged_after_their_pairs_are_pooled(made) -> None:
    protocol = MultiviewPoses(made[0])
    good, bad = [1.5, 1.5], [90.0, 90.0]
    rows = [
        {"name": "apple/1", "pairs_deg": [good]},
        {"name": "apple/2", "pairs_deg": [good, good, bad]},
        {"name": "ball/1", "pairs_deg": [bad]},
    ]
    summary = protocol.summary(rows)
    assert summary["RRA@15"] == pytest.approx(100 * (3 / 4 + 0) / 2)
    assert summary["RRA@15 over pairs"] == pytest.approx(100 * 3 / 5)
    assert summary["RRA@15 over sequences"] == pytest.approx(100 * (1 + 2 / 3 + 0) / 3)


def test_an_unregistered_frame_costs_all_its_pairs(made, tmp_path: Path) -> None:
    truth, sequence = room(tmp_path / "photos")
    (row,), _ = run(MultiviewPoses(PerfectModel(truth, blind=frozenset({"2.png"}))), sequence)
    lost = sum(max(pair) == 180 for pair in row["pairs_deg"])
    assert lost == 3 * (4 - row["registered"])


def test_camera_paths(made) -> None:
    perfect, _, sequence = made
    _, summary = run(CameraPaths(perfect), sequence)
    assert summary["absolute"] < 0.01
    assert summary["relative_rotation_deg"] < 0.3
    mixed = PerfectModel(perfect._truth)
    mixed.encode = lambda views: (_ for _ in ()).throw(RuntimeError("lost")) if len(views) == 3 else PerfectModel.encode(mixed, views)  # fmt: skip  # noqa: E501
    shorter = replace(sequence, name="rooms/two", frames=sequence.frames[:3])
    _, summary = run(CameraPaths(mixed), sequence, shorter)
    assert summary["failed"] == 1
    assert math.isinf(summary["absolute"])
    assert summary["absolute over solved"] < 0.01


def test_single_and_video_depth(made) -> None:
    perfect, broken, sequence = made
    for protocol in (SingleDepth(perfect, DepthRule("median")), VideoDepth(perfect, DepthRule("scale"))):
        (row,), summary = run(protocol, sequence)
        assert summary["AbsRel"] < 0.02
        assert summary["delta1"] > 0.97
        assert row["valid_pixels"] > 0
    assert row["sure_share"] == 1
    assert row["sure_delta1"] == row["delta1"]
    _, summary = run(VideoDepth(broken, DepthRule("scale")), sequence)
    assert summary["failed"] == 1
    assert (summary["AbsRel"], summary["delta1"]) == (1, 0)


def test_a_photo_without_depth_counts_as_nothing(made, monkeypatch: pytest.MonkeyPatch) -> None:
    from unposed.errors import UserError
    from unposed.evaluation.protocols import depth_maps

    def sees_nothing(*_, **__):
        raise UserError("the model sees no depth in a single photo")

    monkeypatch.setattr(depth_maps, "depth", sees_nothing)
    (row,), summary = run(SingleDepth(made[0], DepthRule("median")), made[2])
    assert row["frames_without_depth"] == 4
    assert (summary["AbsRel"], summary["AbsRel over frames"], summary["delta1"]) == (1, 1, 0)


def test_averages_of_depth_are_weighted_by_pixels(made) -> None:
    row = dict.fromkeys(("SqRel", "RMSE", "LogRMSE", "delta1", "delta2", "delta3"), 0.0)
    rows = [{**row, "AbsRel": 0.1, "valid_pixels": 300.0}, {**row, "AbsRel": 0.5, "valid_pixels": 100.0}]
    assert VideoDepth(made[0], DepthRule()).summary(rows)["AbsRel"] == pytest.approx(0.2)


def test_key_view_depth(made) -> None:
    perfect, broken, sequence = made
    (row,), summary = run(KeyViewDepth(perfect, keys=2, sources=2), sequence)
    assert row["key_views"] == 2
    assert summary["rel"] < 2
    assert summary["tau"] > 90
    assert run(KeyViewDepth(broken), sequence)[1] == {"items": 1, "failed": 1, "rel": 100, "tau": 0}


def test_depths_of_several_pairs_agree_on_a_scale_and_are_weighted_by_confidence() -> None:
    points, ones = torch.ones(2, 3, 3), torch.ones(2, 3)
    other = points * 7
    other[0, 0] = 0  # unknown there
    other[1, 2] = 14
    fused = fuse([PairPrediction(points, points, 3 * ones, ones), PairPrediction(other, other, ones, ones)])
    expected = torch.ones(2, 3)
    expected[1, 2] = (3 * 1 + 1 * 2) / 4
    torch.testing.assert_close(fused, expected)


def test_clouds(made) -> None:
    perfect, broken, sequence = made
    (row,), summary = run(Clouds(perfect, every=1, threshold=0.1), sequence)
    assert row["registered"] == 4
    assert summary["accuracy_median"] < 0.05  # of a room of five metres
    assert summary["completion_median"] < 0.05
    assert summary["f_score"] > 0.95
    (row,), _ = run(Clouds(perfect, every=1, centre_crop=20), sequence)
    assert row["points"] <= 4 * 400
    _, summary = run(Clouds(broken, every=1), sequence)
    assert math.isinf(summary["accuracy"])
    assert summary["f_score"] == 0


def test_clouds_of_the_true_scene_at_another_scale_are_exact(made, monkeypatch: pytest.MonkeyPatch) -> None:
    perfect, _, sequence = made
    views = make_views([frame.photo for frame in sequence.frames[:3]], perfect.image_rule)  # the fourth is unregistered
    items = [
        SceneView(view, frame.camera, perfect._depth(view), torch.ones(view.size))
        for view, frame in zip(views, sequence.frames, strict=False)
    ]
    turn = matrix_from_axis_angle(torch.tensor([0.1, 2.0, -0.4]))
    scene = Scene(tuple(items)).transformed(0.2, turn, torch.tensor([3.0, 1.0, 2.0]))
    monkeypatch.setattr(clouds, "reconstruct", lambda *_, **__: scene)
    (row,), _ = run(Clouds(perfect, every=1), sequence)
    assert row["registered"] == 3
    assert row["accuracy"] < 1e-4
    assert row["accuracy"] < row["completion"]  # what only the fourth sees is missing
    assert row["completion_median"] < 1e-4


def test_scale_of_a_cloud_is_that_of_the_truth() -> None:
    truth = torch.randn(501, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + torch.tensor(
        [0, 0, 5]
    )
    torch.testing.assert_close(same_scale(truth * 0.3, truth), truth)


@pytest.mark.parametrize("inverse", [False, True])
def test_pairs(made, inverse: bool) -> None:
    turn = matrix_from_axis_angle(torch.tensor([0.0, 0.2, 0.0]))
    pair = PosedPair("a b", *made[2].frames[:2], rigid(turn, torch.tensor([1.0, 0.0, 0.0])))

    def solve(item: PosedPair) -> torch.Tensor:
        if item.name == "hopeless":
            raise RuntimeError("too few matches")
        found = item.b_from_a.clone()
        found[:3, 3] *= 4
        return found

    (row, lost), summary = run(PairPoses(solve, inverse=inverse), pair, replace(pair, name="hopeless"))
    assert max(row["rotation_deg"], row["translation_deg"]) < 1e-3
    assert lost["rotation_deg"] == lost["translation_deg"] == 180
    assert summary["AUC@5"] == pytest.approx(50, abs=0.1)
    assert summary["failed"] == 1
