"""The sparse road, on a procedural street that weight-free matching can solve."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from unposed.errors import UserError
from unposed.evaluation.photo_sets import read_reference, score_cameras
from unposed.geometry.cameras import map_pixels
from unposed.io.resize import ImageRule
from unposed.models.base import PairMatches
from unposed.models.classic import Classic
from unposed.models.sift import Keypoints
from unposed.scene import Scene
from unposed.tasks import mapping
from unposed.tasks.add import add
from unposed.tasks.mapping import maps_matches
from unposed.tasks.outputs import write_outputs
from unposed.tasks.reconstruct import reconstruct
from unposed.tasks.synth import synthesize
from unposed.views import Pair, View

PHOTOS = 7


class Counting(Classic):
    """Says what it was asked for, and may be killed; looks at photos as small as these."""

    image_rule = ImageRule(size=320)

    def __init__(self, stop_after: int | None = None) -> None:
        self.encoded: list[str] = []
        self.matched: list[tuple[str, str]] = []
        self.stop_after = stop_after

    def encode(self, views: Sequence[View]) -> list[Keypoints]:
        self.encoded += [view.name for view in views]
        return super().encode(views)

    def match_pairs(
        self, views: Sequence[View], features: Sequence[Keypoints], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairMatches]]:
        for (i, j), found in super().match_pairs(views, features, pairs):
            if len(self.matched) == self.stop_after:
                raise KeyboardInterrupt
            self.matched.append((views[i].name, views[j].name))
            yield (i, j), found


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("street") / "photos"
    synthesize(folder, photos=PHOTOS, kind="street", seed=1, width=320, height=240)
    return folder


@pytest.fixture(scope="module")
def tabletop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere") / "photos"
    synthesize(folder, photos=4, kind="tabletop", seed=5, width=320, height=240)
    return folder


@dataclass(frozen=True)
class Runs:
    """A run that was killed, and the one that continued it."""

    killed: Counting
    second: Counting
    scene: Scene


@pytest.fixture(scope="module")
def runs(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    out = tmp_path_factory.mktemp("scene")
    killed, second = Counting(stop_after=8), Counting()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapping, "PAIRS_AT_ONCE", 5)
        with pytest.raises(KeyboardInterrupt):
            reconstruct(street, model=killed, road="sparse", out=out)
        return Runs(killed, second, reconstruct(street, model=second, road="sparse", out=out))


def copied(photos: Path, names: Sequence[str], folder: Path, prefix: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(photos / name, folder / f"{prefix}{name}")
    return folder


def test_cameras_are_those_of_the_street(runs: Runs, street: Path) -> None:
    scene = runs.scene
    score = score_cameras(scene.cameras, read_reference(street))
    assert score["registered"] == PHOTOS
    assert score["auc@5"] > 0.8
    assert score["focal_error_median"] < 0.03
    assert not scene.unregistered
    first = scene.views[0].camera
    assert torch.allclose(first.world_from_camera, torch.eye(4), atol=1e-4)
    assert (first.width, first.height) == (320, 240)


def test_depth_and_tracks_agree(runs: Runs) -> None:
    tracks, item = runs.scene.tracks, runs.scene.views[0]
    assert tracks is not None
    assert len(tracks.points) > 100
    assert tracks.colours.float().std() > 5
    seen = tracks.view == 0
    depth = tracks.points[tracks.track[seen], 2]  # the world is the first camera's frame
    view_from_original = item.view.original_from_view.inverse()
    x, y = map_pixels(view_from_original, tracks.pixel[seen].double()).round().long().T
    assert (item.depth[y, x] / depth - 1).abs().median() < 0.05


def test_a_killed_run_continues_without_doing_anything_twice(runs: Runs) -> None:
    assert sorted(runs.killed.encoded) == [f"00{k}.jpg" for k in range(PHOTOS)]
    assert runs.second.encoded == []
    assert not set(runs.killed.matched) & set(runs.second.matched)
    assert len(runs.killed.matched) + len(runs.second.matched) == PHOTOS * (PHOTOS - 1) / 2


def test_two_places_are_two_scenes_and_a_stranger_is_in_none(street: Path, tabletop: Path, tmp_path: Path) -> None:
    folder = copied(street, [f"00{k}.jpg" for k in range(5)], tmp_path / "mixed", "street_")
    copied(tabletop, [f"00{k}.jpg" for k in range(4)], folder, "table_")
    synthesize(tmp_path / "far", photos=1, kind="vista", seed=9, width=320, height=240)
    copied(tmp_path / "far", ["000.jpg"], folder, "far_")
    scene = reconstruct(folder, model=Counting(), road="sparse")
    parts = [{name.split("_")[0] for name in part.cameras} for part in (scene, *scene.others)]
    assert parts == [{"street"}, {"table"}]
    assert "far_000.jpg" in scene.unregistered


def test_added_photos_join_by_their_own_pairs_only(street: Path, tmp_path: Path) -> None:
    old = copied(street, [f"00{k}.jpg" for k in range(5)], tmp_path / "old")
    new = copied(street, ["004.jpg", "005.jpg", "006.jpg"], tmp_path / "new")
    out = tmp_path / "scene"
    write_outputs(reconstruct(old, model=Counting(), road="sparse", out=out), out)
    model = Counting()
    scene = add(out, new, model=model)
    assert model.encoded == ["005.jpg", "006.jpg"]
    assert len(model.matched) == 5 + 5 + 1
    assert {"005.jpg", "006.jpg"} < set(scene.cameras)
    assert score_cameras(scene.cameras, read_reference(street))["auc@5"] > 0.8
    write_outputs(scene, out)
    assert len(Scene.load(out).views) == PHOTOS
    with pytest.raises(UserError, match="no photo that"):
        add(out, new, model=model)


def test_only_a_scene_of_the_sparse_road_takes_photos(tmp_path: Path, street: Path) -> None:
    with pytest.raises(UserError, match="--road sparse"):
        add(tmp_path, street)


def test_photos_of_nothing_in_common_are_a_clear_error(tabletop: Path, street: Path, tmp_path: Path) -> None:
    folder = copied(street, ["000.jpg"], tmp_path / "two", "a_")
    copied(tabletop, ["000.jpg"], folder, "b_")
    with pytest.raises(UserError, match="overlap"):
        reconstruct(folder, model=Counting(), road="sparse")


def test_which_road_is_taken() -> None:
    model = Classic()
    assert not maps_matches("auto", model, 30, cameras_known=False)
    assert maps_matches("auto", model, 31, cameras_known=False)
    assert not maps_matches("auto", model, 31, cameras_known=True)
    assert not maps_matches("dense", model, 31, cameras_known=False)
    assert maps_matches("sparse", model, 2, cameras_known=False)
    with pytest.raises(UserError, match="known cameras"):
        maps_matches("sparse", model, 2, cameras_known=True)
    with pytest.raises(UserError, match="auto, dense or sparse"):
        maps_matches("long", model, 2, cameras_known=False)
