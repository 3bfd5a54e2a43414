import json

import pytest
import torch
from PIL import Image

from tests.factories import box_scene
from unposed.errors import UserError
from unposed.geometry.cameras import project
from unposed.geometry.rotations import matrix_from_axis_angle
from unposed.geometry.transforms import transform_points
from unposed.io.colmap import read_colmap
from unposed.scene import Scene


def assert_same(a: Scene, b: Scene) -> None:
    assert (a.metric, a.model, dict(a.provenance), a.unregistered) == (
        b.metric, b.model, dict(b.provenance), b.unregistered)  # fmt: skip
    assert len(a.views) == len(b.views)
    for x, y in zip(a.views, b.views, strict=True):
        assert (x.view.name, x.view.path, x.view.original_size) == (y.view.name, y.view.path, y.view.original_size)
        assert torch.equal(x.view.image, y.view.image)
        assert torch.equal(x.view.original_from_view, y.view.original_from_view)
        assert torch.equal(x.camera.intrinsics, y.camera.intrinsics)
        assert torch.equal(x.camera.world_from_camera, y.camera.world_from_camera)
        assert torch.equal(x.depth, y.depth)
        assert torch.equal(x.confidence, y.confidence)
    assert (a.tracks is None) == (b.tracks is None)
    if a.tracks is not None and b.tracks is not None:
        for key in ("points", "colours", "view", "pixel", "track"):
            assert torch.equal(getattr(a.tracks, key), getattr(b.tracks, key))


def test_what_is_saved_is_what_is_loaded(tmp_path):
    other = box_scene(views=2, names=("c.png", "d.png"))
    scene = box_scene(metric=True)
    scene = Scene(
        scene.views, scene.tracks, True, "mini", {"seconds": 1.5, "source": "photos"}, ("blurred.jpg",), (other,)
    )
    scene.save(tmp_path / "room")
    loaded = Scene.load(tmp_path / "room")
    assert_same(scene, loaded)
    assert_same(other, loaded.others[0])


def test_maps_are_readable_by_whoever_reads_the_description(tmp_path):
    box_scene(views=1).save(tmp_path)
    assert (tmp_path / "maps.safetensors").stat().st_mode == (tmp_path / "scene.json").stat().st_mode


def test_saving_leaves_other_files_and_drops_old_components(tmp_path):
    first = box_scene()
    fragmented = Scene(first.views, others=(box_scene(views=2), box_scene(views=2)))
    fragmented.save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "component_3" / "notes.txt").write_text("mine")
    first.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["component_3", "maps.safetensors", "notes.txt", "scene.json"]
    assert [p.name for p in (tmp_path / "component_3").iterdir()] == ["notes.txt"]
    assert Scene.load(tmp_path).others == ()


def test_a_loaded_scene_can_be_saved_where_it_came_from(tmp_path):
    scene = box_scene()
    scene.save(tmp_path)
    Scene.load(tmp_path).transformed(scale=2.0).save(tmp_path)
    assert torch.equal(Scene.load(tmp_path).views[0].depth, scene.views[0].depth * 2)


def test_an_interrupted_save_keeps_the_old_scene(tmp_path, monkeypatch):
    scene = box_scene()
    scene.save(tmp_path)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unposed.scene.save_file", full_disk)
    with pytest.raises(UserError, match="No space left"):
        scene.transformed(scale=3.0).save(tmp_path)
    assert_same(scene, Scene.load(tmp_path))


def test_a_save_cut_before_its_end_leaves_no_scene(tmp_path, monkeypatch):
    scene = box_scene()
    scene.save(tmp_path)
    monkeypatch.setattr(Scene, "_description", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scene.transformed(scale=3.0).save(tmp_path)
    with pytest.raises(UserError, match=r"holds no scene\.json"):
        Scene.load(tmp_path)


def test_no_scene_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"holds no scene\.json"):
        Scene.load(tmp_path / "nowhere")


def test_a_newer_schema_is_refused(tmp_path):
    box_scene().save(tmp_path)
    text = json.loads((tmp_path / "scene.json").read_text())
    text["schema"] = 99
    (tmp_path / "scene.json").write_text(json.dumps(text))
    with pytest.raises(UserError, match="schema version 99"):
        Scene.load(tmp_path)


def _set(*keys, value):
    def damage(text):
        for key in keys[:-1]:
            text = text[key]
        text[keys[-1]] = value

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        _set("views", value=None),
        _set("views", 0, "name", value="../../outside.png"),
        _set("views", 0, "name", value="/outside.png"),
        _set("views", 0, "name", value="photo_1.png"),
        _set("views", 0, "intrinsics", value=[[1, 2], [3, 4]]),
        _set("views", 0, "intrinsics", value=[[float("nan")] * 3] * 3),
        _set("views", 0, "world_from_camera", value="up"),
        _set("views", 0, "original_size", value=[640]),
        _set("views", 0, "original_size", value=[float("inf"), 480]),
        _set("views", 0, "original_size", value=[640, 0]),
        _set("views", 0, "original_from_view", value=[[0, 0, 0]] * 3),
        _set("units", value="feet"),
        _set("other_components", value=-1),
        _set("other_components", value="many"),
        lambda text: text["views"].append(text["views"][0]),
        lambda text: text.pop("views"),
        lambda text: text.pop("other_components"),
    ],
)
def test_a_damaged_description_is_said(tmp_path, damage):
    box_scene().save(tmp_path)
    text = json.loads((tmp_path / "scene.json").read_text())
    damage(text)
    (tmp_path / "scene.json").write_text(json.dumps(text))
    with pytest.raises(UserError, match="damaged"):
        Scene.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"17"])
def test_a_scene_json_that_is_none_is_said(tmp_path, content):
    box_scene().save(tmp_path)
    (tmp_path / "scene.json").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        Scene.load(tmp_path)


def test_cut_or_missing_maps_are_said(tmp_path):
    box_scene().save(tmp_path)
    maps = tmp_path / "maps.safetensors"
    maps.write_bytes(maps.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        Scene.load(tmp_path)
    maps.unlink()
    with pytest.raises(UserError, match="damaged"):
        Scene.load(tmp_path)


def test_points_lie_where_the_cameras_see_them():
    scene = box_scene()
    cloud = scene.points(min_confidence=0.0)
    count = sum(item.depth.numel() for item in scene.views)
    assert cloud.positions.shape == (count, 3)
    x, y, z = cloud.positions.unbind(-1)
    distance = torch.stack([x + z - 4, -x + z - 4, y - 1]).abs().min(0).values
    assert distance.max() < 1e-4
    assert torch.equal(cloud.colours, torch.cat([item.view.image.reshape(-1, 3) for item in scene.views]))


def test_points_are_thinned_by_confidence_and_number():
    scene = box_scene()
    threshold = float(scene.views[0].confidence.median())
    cloud = scene.points(min_confidence=threshold)
    assert cloud.confidence.min() >= threshold
    assert 0 < len(cloud.confidence) < sum(item.depth.numel() for item in scene.views)
    few = scene.points(min_confidence=0.0, max_points=50)
    assert few.positions.shape == (50, 3)
    assert torch.equal(few.positions, scene.points(min_confidence=0.0, max_points=50).positions)


def test_unknown_depth_gives_no_points():
    scene = box_scene(views=2)
    for item in scene.views:
        item.depth[:10] = 0
    assert len(scene.points(min_confidence=0.0).positions) == 2 * 14 * 32
    assert len(Scene(()).points().positions) == 0


def test_default_confidence_never_empties_a_scene():
    scene = box_scene()
    assert scene.default_min_confidence == 1.5
    for item in scene.views:
        item.confidence[:12] = 0  # cleaned away, more than a half
        item.confidence[12:14] = 1
    assert scene.default_min_confidence == 1.5
    for item in scene.views:
        item.confidence.fill_(1.01)
    assert len(scene.points().positions) == sum(item.depth.numel() for item in scene.views)


def test_tracks_of_the_factory_reproject_through_original_cameras():
    scene = box_scene()
    for k, item in enumerate(scene.views):
        mine = scene.tracks.view == k
        local = transform_points(item.camera.camera_from_world, scene.tracks.points[scene.tracks.track[mine]])
        error = (project(local, item.camera.intrinsics) - scene.tracks.pixel[mine]).norm(dim=-1)
        assert error.max() < 1e-2


def test_transformed_moves_everything_together():
    scene = box_scene()
    rotation = matrix_from_axis_angle(torch.tensor([0.3, -0.5, 0.2]))
    translation = torch.tensor([1.0, -2.0, 0.5])
    moved = scene.transformed(2.5, rotation, translation, metric=True)
    assert moved.metric
    assert not scene.metric
    expected = 2.5 * scene.points(0.0).positions @ rotation.T + translation
    assert torch.allclose(moved.points(0.0).positions, expected, atol=1e-4)
    assert torch.allclose(moved.tracks.points, 2.5 * scene.tracks.points @ rotation.T + translation, atol=1e-5)
    for k, item in enumerate(moved.views):
        pose = item.camera.world_from_camera[:3, :3]
        assert torch.allclose(pose @ pose.T, torch.eye(3), atol=1e-5)
        mine = moved.tracks.view == k
        local = transform_points(item.camera.camera_from_world, moved.tracks.points[moved.tracks.track[mine]])
        assert (project(local, item.camera.intrinsics) - moved.tracks.pixel[mine]).norm(dim=-1).max() < 1e-2


def test_depth_of_sky_becomes_unknown():
    scene = box_scene(views=1, size=(48, 64), original_size=(264, 192))
    scene.views[0].view.image[16:] = 60
    scene.views[0].view.image[:16] = torch.tensor([120, 160, 230], dtype=torch.uint8)
    depth = scene.without_sky().views[0].depth
    assert (depth[:16] == 0).all()
    assert torch.equal(depth[16:], scene.views[0].depth[16:])


def test_views_are_found_by_name():
    scene = box_scene()
    assert scene["photo_2.png"] is scene.views[2]
    assert list(scene.cameras) == [f"photo_{k}.png" for k in range(4)]
    with pytest.raises(KeyError):
        scene["nobody.png"]


def test_export_writes_every_kind_and_reprojects_in_the_original_photos(tmp_path):
    scene = box_scene(names=("left/a.jpg", "right/a.jpg", "b.webp", "c.png"))
    for name in ("room.ply", "room.glb", "colmap", "transforms.json", "depth", "room.png"):
        scene.export(tmp_path / name)
        assert (tmp_path / name).exists()
    cameras, tracks = read_colmap(tmp_path / "colmap")
    assert list(cameras) == ["left/a.jpg", "right/a.jpg", "b.webp.png", "c.png"]
    assert len(tracks.pixel) == len(scene.tracks.pixel)
    for k, (name, camera) in enumerate(cameras.items()):
        mine = tracks.view == k
        local = transform_points(camera.camera_from_world, tracks.points[tracks.track[mine]])
        assert (project(local, camera.intrinsics) - tracks.pixel[mine]).norm(dim=-1).max() < 0.01
        with Image.open(tmp_path / "colmap" / "images" / name) as image:
            assert image.size == (camera.width, camera.height)
    assert (tmp_path / "depth" / "left" / "a_depth.npz").exists()
    scene.export(tmp_path / "surface.glb", mesh=True)


def test_export_without_tracks_gives_colmap_points_of_the_depth_maps(tmp_path):
    scene = box_scene()
    Scene(scene.views).export(tmp_path / "my_colmap", min_confidence=0.0)
    cameras, tracks = read_colmap(tmp_path / "my_colmap")
    assert len(cameras) == 4
    assert len(tracks.points) == sum(item.depth.numel() for item in scene.views)
    assert len(tracks.view) == 0


def test_export_of_an_unknown_kind_or_of_nothing_is_said(tmp_path):
    with pytest.raises(UserError, match="no known kind"):
        box_scene().export(tmp_path / "room.obj")
    with pytest.raises(UserError, match="no views"):
        Scene(()).export(tmp_path / "room.ply")
