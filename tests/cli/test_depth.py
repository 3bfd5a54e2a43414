import json

import pytest

from tests.tasks.perfect import rendered, write_photos
from tests.test_cli import outcome


@pytest.fixture
def photo(tmp_path):
    write_photos(tmp_path / "photos", rendered())
    return tmp_path / "photos" / "0.png"


def test_one_photo_writes_its_files(photo, tmp_path, capsys, monkeypatch):
    arguments = ["depth", str(photo), "--out", str(tmp_path / "out"), "--formats", "exr", "ply", "--json", "--quiet"]
    status, out, _ = outcome(capsys, monkeypatch, *arguments)
    assert status == 0
    facts = json.loads(out)["photos"]["0.png"]
    assert (facts["width"], facts["height"], facts["scene"]) == (128, 96, None)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"0.npz", "0_colour.png", "0.exr", "0.ply", "run.json"}


def test_all_formats(photo, tmp_path, capsys, monkeypatch):
    status, out, _ = outcome(
        capsys, monkeypatch, "depth", str(photo), "--out", str(tmp_path / "out"), "--formats", "all", "--quiet"
    )
    assert status == 0
    assert "by themselves" in out
    assert (tmp_path / "out" / "0_depth.json").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["depth"], "photos"),
        (["depth", "nowhere/"], "nowhere"),
        (["depth", "{photo}", "--model", "dust4r"], "dust4r"),
        (["depth", "{photo}", "--model", "classic"], "single photo"),
        (["depth", "{photo}", "--frames", "5"], "video"),
        (["depth", "{photo}", "--out", "{folder}"], "another folder"),
        (["depth", "{photo}", "--out", "{photo}"], "0.png"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(arguments, word, photo, capsys, monkeypatch):
    filled = [argument.format(photo=photo, folder=photo.parent) for argument in arguments]
    status, out, err = outcome(capsys, monkeypatch, *filled)
    assert status == 2
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("unposed: ")
    assert word in last
    assert "Traceback" not in err
