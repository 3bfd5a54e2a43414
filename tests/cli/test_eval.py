import json
from pathlib import Path

import pytest
from PIL import Image

from tests.test_cli import outcome
from unposed.tasks.synth import synthesize


def test_photos_are_evaluated_and_the_same_command_continues(tmp_path: Path, capsys, monkeypatch) -> None:
    synthesize(tmp_path / "set", photos=2, kind="clutter", width=160, height=120)
    command = ["eval", "photos", str(tmp_path / "set"), "--out", str(tmp_path / "out"), "--baseline", "--model"]
    status, out, _ = outcome(capsys, monkeypatch, *command, "classic")
    assert status == 0
    assert "| set | classic |" in out
    assert "| set | baseline |" in out
    before = (tmp_path / "out" / "photos.classic.jsonl").read_text()
    status, out, _ = outcome(capsys, monkeypatch, *command, "classic", "--json")
    assert status == 0
    assert json.loads(out)["classic"]["items"] == 1
    assert (tmp_path / "out" / "photos.classic.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["photos", "nowhere"], "no folder nowhere"),
        (["photos", "."], "gt.json"),
        (["imagenet", "."], "choose one of photos"),
        (["photos", ".", "--model", "dust4r"], "gt.json"),
    ],
)
def test_what_the_user_can_mend_ends_in_one_sentence(
    tmp_path: Path, capsys, monkeypatch, arguments: list[str], word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = outcome(capsys, monkeypatch, "eval", *arguments)
    assert status == 2
    assert word in err
    assert len(err.strip().splitlines()) == 1


def test_help_names_what_it_takes(capsys, monkeypatch) -> None:
    status, out, _ = outcome(capsys, monkeypatch, "eval", "--help")
    assert status == 0
    assert "BENCHMARK ROOT" in out
    assert "--baseline" in out


def test_infinities_are_strings_in_json(tmp_path: Path, capsys, monkeypatch) -> None:
    for folder in ("color", "intrinsic", "pose"):
        (tmp_path / "scene0707_00" / folder).mkdir(parents=True)
    for number in (0, 3):
        Image.new("RGB", (128, 96), (number, 0, 0)).save(tmp_path / "scene0707_00" / "color" / f"{number}.jpg")
        (tmp_path / "scene0707_00" / "pose" / f"{number}.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    (tmp_path / "scene0707_00" / "color" / "1.jpg").write_bytes(b"")
    (tmp_path / "scene0707_00" / "color" / "2.jpg").write_bytes(b"")
    matrix = "100 0 64 0\n0 100 48 0\n0 0 1 0\n0 0 0 1\n"
    (tmp_path / "scene0707_00" / "intrinsic" / "intrinsic_color.txt").write_text(matrix)
    command = ("eval", "scannet-video-path", str(tmp_path), "--model", "classic", "--out", str(tmp_path / "out"))
    status, out, _ = outcome(capsys, monkeypatch, *command, "--json")
    assert status == 0
    summary = json.loads(out, parse_constant=pytest.fail)["classic"]
    assert summary["failed"] == 1
    assert summary["absolute"] == "inf"
