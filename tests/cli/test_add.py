import json
from pathlib import Path

import pytest

from tests.test_cli import outcome
from unposed.scene import Scene
from unposed.tasks.synth import synthesize


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walk") / "photos"
    synthesize(folder, photos=5, kind="street", seed=1, width=320, height=240)
    return folder


def test_a_sparse_scene_takes_more_photos(photos, tmp_path, capsys, monkeypatch):
    out, first = tmp_path / "scene", [str(photos / f"00{k}.jpg") for k in range(4)]
    arguments = [*first, "--out", str(out), "--model", "classic", "--road", "sparse", "--json"]
    status, printed, told = outcome(capsys, monkeypatch, "reconstruct", *arguments)
    assert status == 0
    assert json.loads(printed)["registered"] == 4
    assert "GB of memory for 4 photos" in told
    status, printed, told = outcome(capsys, monkeypatch, "add", str(out), str(photos / "004.jpg"), "--json")
    assert status == 0
    facts = json.loads(printed)
    assert (facts["photos"], facts["registered"]) == (5, 5)
    assert "6 of 10 pairs come from an earlier run" in told
    assert set(Scene.load(out).cameras) == {f"00{k}.jpg" for k in range(5)}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["add"], "SCENE"),
        (["add", "{tmp}"], "new photos"),
        (["add", "{tmp}", "{photos}"], "--road sparse"),
        (["reconstruct", "{photos}", "--road", "sparse", "--cameras", "{photos}/missing"], "missing"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(photos, tmp_path, capsys, monkeypatch, arguments, word):
    filled = [each.format(photos=photos, tmp=tmp_path) for each in arguments]
    status, _, told = outcome(capsys, monkeypatch, *filled)
    assert status == 2
    assert word in told
