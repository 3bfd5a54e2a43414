import json
from pathlib import Path

import pytest

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
