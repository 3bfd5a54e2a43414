import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tasks.perfect import rendered, write_photos
from unposed import __version__, cli

VERBS = (
    *("reconstruct", "view", "demo", "models", "synth", "train", "eval"),
    *("depth", "match", "pose", "intrinsics", "localize", "stereo", "flow"),
)


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "unposed.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, **options)


def outcome(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error, in this process."""
    monkeypatch.setattr(sys, "argv", ["unposed", *arguments])
    status = 0
    try:
        cli.main()
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_version(capsys, monkeypatch) -> None:
    assert outcome(capsys, monkeypatch, "--version") == (0, f"unposed {__version__}\n", "")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb: str, capsys, monkeypatch) -> None:
    status, out, _ = outcome(capsys, monkeypatch, verb, "--help")
    assert status == 0
    assert "usage: unposed" in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["reconstruct", "nowhere/"], "nowhere"),
        (["reconstruct"], "photos"),
        (["reconstruct", "{empty}"], "photo"),
        (["reconstruct", "{photo}", "--model", "dust4r"], "dust4r"),
        (["reconstruct", "{photo}", "--graph", "webbed"], "webbed"),
        (["reconstruct", "{photo}", "--cameras", "nowhere"], "nowhere"),
        (["reconstruct", "{photo}", "--device", "toaster"], "toaster"),
        (["reconstruct", "{photo}", "--frames", "5"], "video"),
        (["view", "{empty}"], "scene"),
        (["view", "nowhere"], "nowhere"),
        (["synth", "--out", "{full}"], "full"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence_and_status_2(arguments, word, tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    write_photos(tmp_path / "photos", rendered(2))
    places = {"empty": tmp_path / "empty", "full": tmp_path / "full", "photo": tmp_path / "photos"}
    monkeypatch.chdir(tmp_path)
    status, out, err = outcome(capsys, monkeypatch, *(a.format(**places) for a in arguments), "--quiet")
    assert status == 2
    *news, sentence = err.strip().splitlines()
    assert sentence.startswith("unposed: ")
    assert word in sentence
    assert all(line.startswith("model: ") for line in news)
    assert "Traceback" not in err + out


def test_reconstruct_writes_everything_and_tells_in_json(tmp_path: Path) -> None:
    made = run(
        "synth", "--out", str(tmp_path / "photos"), "--photos", "3", "--width", "256", "--height", "192", "--json"
    )
    assert made.returncode == 0, made.stderr
    (tmp_path / "photos" / "notes.jpg").write_text("not a photo")
    done = run("reconstruct", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--model", "classic", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["photos"] == 3
    assert facts["skipped"] == 5  # notes.jpg, gt.json and the depth maps, which are no photos
    assert facts["model"] == "classic"
    assert "notes.jpg" in done.stderr
    for name in ("scene.json", "scene.glb", "scene.ply", "transforms.json", "preview.png"):
        assert (tmp_path / "out" / name).is_file()
    assert (tmp_path / "out" / "colmap").is_dir()


def test_interrupted_from_the_keyboard_leaves_a_resumable_state(tmp_path: Path) -> None:
    assert (
        run("synth", "--out", str(tmp_path / "photos"), "--photos", "6", "--width", "320", "--height", "240").returncode
        == 0
    )
    command = [sys.executable, "-m", "unposed.cli", "reconstruct", "photos", "--model", "classic", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pairs = tmp_path / "out" / "pairs"
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while len(list(pairs.glob("*.safetensors"))) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the run was through before it could be interrupted")
    assert process.returncode == 130
    assert "continues" in err
    assert "Traceback" not in err
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "from an earlier run" in again.stderr
    assert not pairs.exists()


def test_models_lists_names_licences_and_what_is_here(capsys, monkeypatch) -> None:
    status, out, _ = outcome(capsys, monkeypatch, "models", "--json")
    assert status == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert {"classic", "mini", "dust3r-224-linear", "dust3r-512-linear", "dust3r-512-dpt"} <= set(rows)
    assert rows["classic"]["cached"]
    assert "CC BY-NC-SA" in rows["dust3r-512-dpt"]["licence"]
    status, out, _ = outcome(capsys, monkeypatch, "models")
    assert "dust3r-512-dpt" in out


def test_train_exports_a_file_that_reconstructs(tmp_path: Path) -> None:
    weights = tmp_path / "tiny.safetensors"
    trained = run(
        "train", "mini", "--out", str(tmp_path / "run"), "--minutes", "0.15", "--side", "32", "--tiny",
        "--export", str(weights), "--device", "cpu", "--json", "--quiet",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["steps"] > 0
    write_photos(tmp_path / "photos", rendered(2))
    done = run(
        "reconstruct", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--model", str(weights), "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["photos"] == 2
