import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.evaluation.protocols.made import room
from tests.tasks.perfect import PerfectModel
from unposed.errors import UserError
from unposed.evaluation.datasets.base import Frame, Landmarks, Relocalisation
from unposed.evaluation.protocols.localisation import DataReference, Localisation
from unposed.geometry.cameras import pixel_grid, pointmap_from_depth, project
from unposed.geometry.transforms import transform_points


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[PerfectModel, Relocalisation]:
    truth, sequence = room(tmp_path_factory.mktemp("room") / "photos", views=4)
    return PerfectModel(truth), Relocalisation("room", sequence.frames[:3], sequence.frames[3:])


def test_a_perfect_model_places_the_query(made) -> None:
    model, scene = made
    row = Localisation(model, top_k=3).score(scene)
    assert (row["registered"], row["queries"]) == (1, 1)
    assert row["median_cm"] < 10  # of a room of five metres, seen by 112 pixels
    assert row["median_deg"] < 1
    assert row["within (0.1 m, 1 deg)"] == 100


def test_only_the_published_references_are_used_and_a_query_without_any_is_lost(made) -> None:
    model, scene = made
    query, best = scene.queries[0].photo.name, scene.references[1].photo.name
    row = Localisation(model, top_k=1).score(replace(scene, retrieved={query: (best, scene.references[0].photo.name)}))
    assert row["registered"] == 1
    row = Localisation(model).score(replace(scene, retrieved={}))
    assert math.isinf(row["median_cm"])
    assert row["within (5 m, 10 deg)"] == 0


def test_failures_are_infinite_and_means_are_over_scenes(made) -> None:
    model, scene = made
    protocol = Localisation(model)
    failed = protocol.failed(scene)
    assert math.isinf(failed["median_deg"])
    good = protocol._measured(torch.tensor([[0.05, 0.5], [0.3, 1.0]]).numpy())
    summary = protocol.summary([{"name": "a", **good}, {"name": "b", **failed, "error": "no"}])
    assert (summary["items"], summary["failed"], summary["queries"]) == (2, 1, 3)
    assert summary["within (0.1 m, 1 deg)"] == 25
    assert math.isinf(summary["median_cm"])


def test_references_lift_pixels_by_the_true_depth(made, tmp_path: Path) -> None:
    _, scene = made
    frame = scene.references[0]
    reference = DataReference("a", frame.camera, frame.photo, frame=frame)
    pixels = torch.tensor([[10.0, 20.0], [60.0, 40.0], [-3.0, 0.0]])
    points = reference.lift(pixels)
    assert points[2].isnan().all()
    local = transform_points(frame.camera.camera_from_world.double(), points[:2])
    torch.testing.assert_close(project(local, frame.camera.intrinsics.double()), pixels[:2].double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(local[:, 2].float(), frame.depth()[[20, 40], [10, 60]])


def test_references_lift_pixels_by_the_points_seen_in_them(made) -> None:
    frame = made[1].references[0]
    seen = Landmarks(torch.tensor([[5.0, 5.0], [90.0, 40.0]]), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    reference = DataReference("a", frame.camera, frame.photo, frame=replace(frame, depth=None, landmarks=lambda: seen))
    points = reference.lift(torch.tensor([[90.05, 40.0], [50.0, 50.0]]))
    assert points[0].tolist() == [4, 5, 6]
    assert points[1].isnan().all()


def test_poses_are_kept_where_the_true_ones_are_hidden(made) -> None:
    model, scene = made
    query = scene.queries[0]
    hidden = replace(query, camera=None, intrinsics=query.camera.intrinsics)
    scene = replace(scene, queries=(hidden,))
    row = Localisation(model, top_k=3).score(scene)
    assert (row["registered"], row["queries"]) == (1, 1)
    found = torch.tensor(row["poses"][query.photo.name])
    torch.testing.assert_close(found[:3, 3], query.camera.centre, atol=0.1, rtol=0)
    assert Localisation(model).failed(scene)["poses"] == {query.photo.name: None}
    assert Localisation(model).summary([{"name": "room", **row}])["registered"] == 1


def test_a_cut_out_of_a_scan_gets_the_camera_that_its_points_tell(made) -> None:
    model, scene = made
    references = []
    for frame in scene.references:
        pixels = pixel_grid(*frame.depth().shape).reshape(-1, 2)
        local = pointmap_from_depth(frame.depth(), frame.camera.intrinsics).reshape(-1, 3)
        seen = Landmarks(pixels, transform_points(frame.camera.world_from_camera, local))
        references.append(Frame(frame.photo, landmarks=lambda seen=seen: seen, intrinsics=frame.camera.intrinsics))
    row = Localisation(model, top_k=3).score(replace(scene, references=tuple(references)))
    assert row["registered"] == 1
    assert row["median_cm"] < 10
    with pytest.raises(UserError, match="no photo of the map has a camera"):
        Localisation(model).score(replace(scene, references=(Frame(scene.references[0].photo),)))
