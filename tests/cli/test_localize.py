import json
import shutil

import pytest

from tests.tasks.perfect import write_photos
from tests.test_cli import outcome
from unposed.io.colmap import write_colmap
from unposed.synth import render_scenes
from unposed.views import Camera


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A COLMAP model of three photos of a room, and a fourth photo."""
    folder = tmp_path_factory.mktemp("place")
    truth = render_scenes(11, 1, 4, 192, 256, kinds=("clutter",))
    write_photos(folder / "images", truth)
    shutil.move(folder / "images" / "1.png", folder / "query.png")
    poses = zip(truth.intrinsics[0], truth.world_from_camera[0], strict=True)
    cameras = {f"{k}.png": Camera(i, p, 256, 192) for k, (i, p) in enumerate(poses)}
    pose = cameras.pop("1.png").world_from_camera
    write_colmap(folder / "sparse" / "0", cameras)
    return folder, pose


def test_a_photo_is_placed_in_a_colmap_model(place, tmp_path, capsys, monkeypatch):
    folder, pose = place
    command = ["localize", str(folder / "query.png"), "--in", str(folder), "--model", "classic", "--json", "--quiet"]
    status, out, err = outcome(capsys, monkeypatch, *command)
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["reliable"], told["reason"]
    assert told["inliers"] >= 12
    assert [len(row) for row in told["world_from_camera"]] == [4] * 4
    assert [len(row) for row in told["intrinsics"]] == [3] * 3
    distance = sum((told["world_from_camera"][k][3] - float(pose[k, 3])) ** 2 for k in range(3)) ** 0.5
    assert distance < 0.05
    assert told["rotation_sigma_deg"] < 1
    assert told["focal_source"] == "map"


def test_a_folder_of_queries_is_a_list_with_files(place, tmp_path, capsys, monkeypatch):
    folder, _ = place
    shutil.copytree(folder / "images", tmp_path / "queries")
    (tmp_path / "queries" / "2.png").unlink()
    out_folder = tmp_path / "out"
    command = ["localize", str(tmp_path / "queries"), "--in", str(folder / "sparse" / "0"), "--out", str(out_folder)]
    command += ["--model", "classic", "--quiet"]
    status, out, _ = outcome(capsys, monkeypatch, *command, "--json")
    assert status == 0
    told = json.loads(out)
    assert [query["name"] for query in told["queries"]] == ["0.png", "3.png"]
    assert told["of"] == 2
    assert {path.name for path in out_folder.iterdir()} == {"localize.json", "poses.txt", "submission.txt", "queries"}
    status, out, _ = outcome(capsys, monkeypatch, *command)
    assert status == 0
    assert "placed" in out
    assert "0.png" in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--in", "{folder}"], "QUERY"),
        (["{folder}/query.png", "--in", "nowhere"], "no map at nowhere"),
        (["{folder}/query.png", "--in", "{empty}"], "holds no map"),
        (["{folder}/query.png", "--in", "{folder}", "--images", "{empty}"], "--images"),
        (["{empty}", "--in", "{folder}"], "no photo"),
        (["nowhere.jpg", "--in", "{folder}"], "nowhere.jpg"),
        (["{folder}/query.png", "--in", "{folder}", "--focal", "-3"], "focal"),
        (["{folder}/query.png", "--in", "{folder}", "--top-k", "0"], "--top-k"),
        (["{folder}/query.png", "--in", "{folder}", "--model", "dust4r"], "dust4r"),
        (["{folder}/query.png", "--in", "{damaged}"], "transforms.json"),
    ],
)
def test_what_the_user_can_mend_ends_in_one_sentence(place, tmp_path, capsys, monkeypatch, arguments, word):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "transforms.json").write_text("{")
    places = {"folder": place[0], "empty": tmp_path / "empty", "damaged": tmp_path / "damaged"}
    status, out, err = outcome(
        capsys, monkeypatch, "localize", *(argument.format(**places) for argument in arguments), "--quiet"
    )
    assert status == 2
    assert out == ""
    assert word in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
