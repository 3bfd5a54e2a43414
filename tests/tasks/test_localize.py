import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import unposed
from tests.factories import box_scene
from tests.tasks.perfect import HEIGHT, WIDTH, PerfectModel, rendered, true_cameras, write_photos
from unposed.align.matching import pair_matches
from unposed.errors import UserError
from unposed.evaluation.pose import rotation_error
from unposed.geometry.transforms import invert_rigid
from unposed.io.colmap import write_colmap
from unposed.io.nerfstudio import write_transforms
from unposed.io.photos import find_photos, make_views
from unposed.scene import Scene, SceneView
from unposed.tasks.localize import localize
from unposed.tasks.posed_map import protocol_view, read_map
from unposed.tasks.progress import Silent
from unposed.views import Matches, PairPrediction

QUERY = "2.png"
CAMERAS = true_cameras(rendered(5))
DEPTH = float(rendered(5).depth[0, 2][rendered(5).depth[0, 2] > 0].median())


class Kept(Silent):
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


class Perfect(PerfectModel):
    """Views of the photos' own size, for which the depth needs no rounding."""

    def __init__(self, truth):
        super().__init__(truth, size=WIDTH)


class Outliers(Perfect):
    """Perfect but for a share of the pixels of the second view, whose points are swapped among themselves."""

    share = 0.3

    def decode(self, views, features, pairs):
        for pair, prediction in super().decode(views, features, pairs):
            flat = prediction.points_j.reshape(-1, 3).clone()
            generator = torch.Generator().manual_seed(pair[1])
            wrong = torch.randperm(len(flat), generator=generator)[: int(self.share * len(flat))]
            flat[wrong] = flat[wrong[torch.randperm(len(wrong), generator=generator)]]
            yield pair, replace(prediction, points_j=flat.reshape(prediction.points_j.shape))


class Strangers(Perfect):
    """Sees no pixel of one view in another."""

    def decode(self, views, features, pairs):
        for pair, p in super().decode(views, features, pairs):
            nothing = torch.ones_like(p.confidence_i), torch.ones_like(p.confidence_j)
            yield pair, PairPrediction(p.points_i, p.points_j, *nothing)


@pytest.fixture(scope="module")
def truth():
    return rendered(5)


@pytest.fixture(scope="module")
def place(tmp_path_factory, truth):
    """A folder with the map's photos in ``images`` and the query beside it."""
    folder = tmp_path_factory.mktemp("place")
    write_photos(folder / "images", truth)
    shutil.move(folder / "images" / QUERY, folder / QUERY)
    return folder


@pytest.fixture(scope="module")
def scene(place, truth):
    """A scene with exact cameras and depth, of all photos but the query."""
    model = Perfect(truth)
    views = make_views(find_photos(place / "images").photos, model.image_rule)
    depths = [model._depth(view) for view in views]
    items = [SceneView(v, CAMERAS[v.name], d, torch.full_like(d, 6)) for v, d in zip(views, depths, strict=True)]
    return Scene(tuple(items), None, True, "perfect", {}, (), ())


@pytest.fixture
def colmap(place, tmp_path):
    """A text model of the map's cameras without a point, and a copy of its photos beside it."""
    write_colmap(tmp_path / "sparse", {name: c for name, c in CAMERAS.items() if name != QUERY}, text=True)
    shutil.copytree(place / "images", tmp_path / "images")
    return tmp_path / "sparse"


def errors(result):
    """Rotation error in degrees; position error as a share of the median depth."""
    found, true = result.world_from_camera, CAMERAS[QUERY].world_from_camera.double()
    turn = float(rotation_error(found[:3, :3], true[:3, :3]))
    return turn, float((found[:3, 3] - true[:3, 3]).norm()) / DEPTH


def test_a_scene_with_exact_depth_places_the_query_exactly(place, scene, truth):
    result = localize(place / QUERY, scene, model=Perfect(truth))
    turn, shift = errors(result)
    assert turn < 0.05
    assert shift < 0.001
    assert result.reliable
    assert result.reason == ""
    assert (result.focal_source, result.metric) == ("map", True)
    torch.testing.assert_close(result.intrinsics.float(), CAMERAS[QUERY].intrinsics)
    assert (result.width, result.height) == (WIDTH, HEIGHT)
    assert set(result.references) <= {"0.png", "1.png", "3.png", "4.png"}
    assert result.inliers > 50
    assert turn < 3 * result.rotation_sigma < 0.1
    assert shift < 3 * result.position_sigma / DEPTH < 0.01
    assert result.camera.width == WIDTH


def test_outliers_do_not_move_it(place, scene, truth):
    turn, shift = errors(localize(place / QUERY, scene, model=Outliers(truth)))
    assert turn < 0.5
    assert shift < 0.01


def test_one_reference_is_enough_where_it_has_depth_and_not_where_it_has_none(place, scene, colmap, truth):
    alone = replace(scene, views=scene.views[1:2])
    turn, shift = errors(localize(place / QUERY, alone, model=Perfect(truth)))
    assert turn < 0.05
    assert shift < 0.001
    write_colmap(colmap, {"1.png": CAMERAS["1.png"]}, text=True)
    result = localize(place / QUERY, colmap, model=Perfect(truth))
    assert result.world_from_camera is None
    assert not result.reliable
    assert "no 3D" in result.reason
    assert result.camera is None


def test_a_colmap_model_without_points_is_enough(place, colmap, truth):
    for source in (colmap, colmap.parent):
        result = localize(place / QUERY, source, model=Perfect(truth))
        turn, shift = errors(result)
        assert turn < 0.05
        assert shift < 0.001
        assert result.metric is None


def test_photos_of_a_colmap_model_may_lie_elsewhere_and_have_another_size(place, colmap, tmp_path, truth):
    shutil.move(tmp_path / "images", tmp_path / "far" / "away")
    for file in (tmp_path / "far" / "away").iterdir():
        Image.open(file).resize((2 * WIDTH, 2 * HEIGHT)).save(file)
    posed = read_map(colmap, tmp_path / "far" / "away", Silent())
    assert [r.name for r in posed.references] == ["0.png", "1.png", "3.png", "4.png"]
    camera = posed.references[0].camera
    assert (camera.width, camera.height) == (2 * WIDTH, 2 * HEIGHT)
    torch.testing.assert_close(camera.intrinsics[0, 2], CAMERAS["0.png"].intrinsics[0, 2] * 2 + 0.5)


def test_posed_photos_of_a_transforms_file_are_enough(place, scene, tmp_path, truth):
    views = [item.view for item in scene.views]
    write_transforms(tmp_path / "transforms.json", views, [item.camera for item in scene.views])
    for source in (tmp_path, tmp_path / "transforms.json"):
        turn, shift = errors(localize(place / QUERY, source, model=Perfect(truth)))
        assert turn < 0.05
        assert shift < 0.001


def test_what_reconstruct_exports_for_colmap_is_a_map(tmp_path):
    scene = box_scene(size=(96, 132))
    scene.save(tmp_path / "out")
    scene.export(tmp_path / "out" / "colmap")
    exported = read_map(tmp_path / "out" / "colmap", None, Silent())
    assert [r.name for r in exported.references] == [item.view.name for item in scene.views]
    first = exported.references[0]
    pixels, points = first.sparse
    assert len(pixels) > 20
    lifted = first.lift(pixels + 0.1)
    torch.testing.assert_close(lifted.float(), points, atol=1e-4, rtol=0)
    assert first.lift(pixels + 20).isnan().all(-1).any()
    assert len(read_map(tmp_path / "out", None, Silent()).references[0].lift(pixels)) == len(pixels)


def test_depth_is_lifted_between_pixels_and_never_across_a_jump(scene):
    reference = read_map(scene, None, Silent()).references[0]
    item = scene.views[0]
    pixels = torch.tensor([[50.0, 40.0], [50.5, 40.5]])
    expected = item.pointmap()[40, 50].double()
    lifted = reference.lift(pixels)
    torch.testing.assert_close(lifted[0], expected, atol=1e-4, rtol=0)
    assert float((lifted[1] - expected).norm()) < 0.2
    jump = torch.full_like(item.depth, 2.0)
    jump[:, 51:] = 4.0
    reference = replace(reference, dense=replace(item, depth=jump))
    assert reference.lift(pixels).isnan().all()
    assert reference.lift(torch.tensor([[-5.0, 3.0], [40.0, 40.0]])).isnan().all(-1).tolist() == [True, False]


def test_the_focal_length_is_what_is_said_or_estimated(place, scene, truth, monkeypatch):
    monkeypatch.setattr("unposed.tasks.posed_map.Reference.of_same_kind", lambda *_: False)
    focal, model = float(CAMERAS[QUERY].intrinsics[0, 0]), Perfect(truth)
    estimated = localize(place / QUERY, scene, model=model)
    assert estimated.focal_source == "estimated"
    assert float(estimated.intrinsics[0, 0]) == pytest.approx(focal, rel=0.002)
    assert errors(estimated)[0] < 0.1
    assert estimated.position_sigma > 0
    given = localize(place / QUERY, scene, focal=focal, model=model)
    assert given.focal_source == "given"
    assert errors(given)[0] < 0.05
    wrong = localize(place / QUERY, scene, focal=3 * focal, model=model)
    assert float(wrong.intrinsics[0, 0]) == pytest.approx(3 * focal)  # what the user says stands
    assert not wrong.reliable or errors(wrong)[1] > 0.1


@pytest.mark.parametrize(("factor", "source"), [(1.05, "exif"), (3.0, "estimated")])
def test_exif_is_a_hint(place, scene, truth, factor, source):
    """A focal length that is a little off is corrected; one that explains little is not used."""
    focal = float(CAMERAS[QUERY].intrinsics[0, 0])
    photo = replace(find_photos(place / QUERY).photos[0], exif_focal=factor * focal)
    result = localize(photo, scene, model=Perfect(truth))
    assert result.focal_source == source
    assert float(result.intrinsics[0, 0]) == pytest.approx(focal, rel=0.002)
    assert errors(result)[0] < 0.1


def test_references_are_matched_with_each_other_where_no_two_see_one_pixel_of_the_query(place, colmap, truth):
    class Disjoint(Perfect):
        """Whole-pixel matches; every reference matches other columns of the query."""

        pairs_of_references = 0

        def decode(self, views, features, pairs):
            for (i, j), prediction in super().decode(views, features, pairs):
                found = pair_matches(prediction, stride=1)
                keep = torch.ones(len(found.confidence), dtype=torch.bool)
                if views[i].name == QUERY:
                    keep = found.points_a[:, 0] % 4 == j - 1
                else:
                    self.pairs_of_references += 1
                kept = Matches(found.points_a[keep], found.points_b[keep], found.confidence[keep])
                yield (i, j), replace(prediction, matches=kept)

    model = Disjoint(truth)
    result = localize(place / QUERY, colmap, model=model)
    assert model.pairs_of_references == 6
    assert result.reliable
    turn, shift = errors(result)
    assert turn < 0.3
    assert shift < 0.005


def test_a_photo_of_another_place_is_not_placed(place, scene, truth):
    result = localize(place / QUERY, scene, model=Strangers(truth))
    assert result.world_from_camera is None
    assert not result.reliable
    assert "no photo of the map" in result.reason
    assert result.inliers == 0
    assert result.references == ()


def test_chance_matches_place_nothing(place, scene, truth):
    class Chance(Outliers):
        share = 1.0

    result = localize(place / QUERY, scene, model=Chance(truth))
    assert not result.reliable
    assert result.world_from_camera is None


def test_a_large_map_is_searched_for_similar_photos(place, colmap, truth, monkeypatch):
    class Retriever:
        described = 0

        def describe(self, views, features=None):
            self.described += len(views)
            return [view.name for view in views]

        def similarity(self, queries, database):
            wanted = {"3.png": 2.0, "1.png": 1.0}
            return torch.tensor([[wanted.get(name, 0.0) for name in database] for _ in queries])

    retriever = Retriever()
    monkeypatch.setattr("unposed.tasks.localizer.find_retriever", lambda model: retriever)
    model = Perfect(truth)
    result = localize(place / QUERY, colmap, model=model, top_k=2)
    assert errors(result)[0] < 0.05
    assert set(result.references) == {"1.png", "3.png"}
    assert len(model.decoded) == 2
    assert retriever.described == 5


def test_several_queries_continue_where_they_stopped(place, scene, tmp_path, truth):
    queries = tmp_path / "queries"
    queries.mkdir()
    for name in ("1.png", QUERY, "3.png"):
        shutil.copy(place / QUERY if name == QUERY else place / "images" / name, queries / name)
    small = replace(scene, views=tuple(scene.views[k] for k in (0, 3)))
    model, out = Perfect(truth), tmp_path / "out"
    model.stop_after = 5
    with pytest.raises(KeyboardInterrupt):
        localize(queries, small, model=model, out=out)
    again = Perfect(truth)
    results = localize(queries, small, model=again, out=out)
    assert len(again.decoded) == 2  # one query of three was left
    assert [result.name for result in results] == ["1.png", QUERY, "3.png"]
    assert all(result.reliable for result in results)
    before = Perfect(truth)
    once_more = localize(queries, small, model=before, out=out)
    assert before.decoded == []
    torch.testing.assert_close(once_more[1].world_from_camera, results[1].world_from_camera)
    assert once_more[1].references == results[1].references
    other = Perfect(truth)
    localize(queries, small, model=other, out=out, focal=100.0)
    assert len(other.decoded) == 6  # another setting: nothing of the earlier runs counts


def test_results_are_written(place, scene, tmp_path, truth):
    localize([place / QUERY], scene, model=Perfect(truth), out=tmp_path)
    told = json.loads((tmp_path / "localize.json").read_text())["queries"][0]
    assert told["name"] == QUERY
    pose = torch.tensor(told["world_from_camera"])
    name, *numbers = (tmp_path / "poses.txt").read_text().split()
    assert name == QUERY
    w, x, y, z, *translation = map(float, numbers)
    camera_from_world = invert_rigid(pose)
    np.testing.assert_allclose(translation, camera_from_world[:3, 3], atol=1e-5)
    assert w * w + x * x + y * y + z * z == pytest.approx(1)
    assert 1 - 2 * (y * y + z * z) == pytest.approx(float(camera_from_world[0, 0]), abs=1e-5)
    localize([place / QUERY], scene, model=Strangers(truth), out=tmp_path / "failed")
    assert (tmp_path / "failed" / "poses.txt").read_text() == ""
    assert (tmp_path / "failed" / "submission.txt").read_text() == f"{QUERY} 1 0 0 0 0 0 0\n"
    assert json.loads((tmp_path / "failed" / "localize.json").read_text())["queries"][0]["world_from_camera"] is None


def test_a_damaged_result_is_made_again(place, scene, tmp_path, truth):
    localize(place / QUERY, scene, model=Perfect(truth), out=tmp_path)
    (kept,) = (tmp_path / "queries").iterdir()
    kept.write_text('{"run": 3')
    assert localize(place / QUERY, scene, model=Perfect(truth), out=tmp_path).reliable


def test_pictures_and_arrays_are_queries(place, scene, truth):
    pixels = np.array(Image.open(place / QUERY))

    class Named(Perfect):
        def encode(self, views):
            return super().encode([replace(v, name=QUERY) if v.name == "query.png" else v for v in views])

        def _depth(self, view):
            return super()._depth(replace(view, name=QUERY) if view.name == "query.png" else view)

    class Blindless(Named):
        blind = frozenset()

    assert errors(unposed.localize(pixels, scene, model=Blindless(truth)))[0] < 0.05


def test_released_networks_get_the_views_of_their_protocol(place):
    photo = find_photos(place / QUERY).photos[0]
    view = protocol_view(photo, replace(Perfect(rendered(5)).image_rule, size=512))
    assert view.size == (384, 512)
    torch.testing.assert_close(view.original_from_view @ torch.tensor([255.5, 191.5, 1.0]).double(),
                               torch.tensor([63.5, 47.5, 1.0]).double())  # fmt: skip


def test_what_the_user_can_mend(place, scene, colmap, tmp_path, truth):
    model = Perfect(truth)
    (tmp_path / "nothing").mkdir()
    wrong = {
        "no map at": {"map": tmp_path / "nowhere"},
        "holds no map": {"map": tmp_path / "nothing"},
        "--images": {"map": colmap, "images": tmp_path / "nothing"},
        "nowhere.png": {"query": tmp_path / "nowhere.png"},
        "no photo": {"query": tmp_path / "nothing"},
        "--top-k": {"top_k": 0},
        "--focal": {"focal": math.nan},
        "without views": {"map": replace(scene, views=())},
    }
    for words, change in wrong.items():
        with pytest.raises(UserError, match=words):
            localize(**{"query": place / QUERY, "map": scene, "model": model} | change)


def test_missing_photos_of_the_map_are_told(place, colmap, tmp_path, truth):
    (tmp_path / "images" / "0.png").unlink()
    report = Kept()
    assert localize(place / QUERY, colmap, model=Perfect(truth), report=report).reliable
    assert any("1 of the 4 photos" in line for line in report.lines)
