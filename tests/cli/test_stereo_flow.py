import json

import numpy as np
import pytest
from PIL import Image

from tests.models.tiny_croco import write_tiny_croco
from tests.stereo_pair import stereo_pair
from tests.test_cli import outcome


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The files l.png and r.png of a rectified pair in the working folder."""
    for name, picture in (("l.png", stereo_pair().left), ("r.png", stereo_pair().right)):
        Image.fromarray(picture.numpy()).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_stereo_with_depth_and_a_picture(photos, capsys, monkeypatch):
    camera = ["--focal", str(stereo_pair().focal), "--baseline", str(stereo_pair().baseline)]
    arguments = ["stereo", "l.png", "r.png", "--out", "s.npz", "--picture", "s.jpg", "--json", "--quiet", *camera]
    status, printed, _ = outcome(capsys, monkeypatch, *arguments)
    assert status == 0
    facts = json.loads(printed)
    assert (facts["width"], facts["height"], facts["model"]) == (320, 240, "classic")
    assert facts["files"] == ["s.npz", "s.jpg"]
    assert 0.5 < facts["known"] <= 1
    assert facts["median_depth"] == pytest.approx(
        stereo_pair().focal * stereo_pair().baseline / facts["median_disparity"], rel=1e-3
    )
    with np.load("s.npz") as saved:
        assert saved["disparity"].shape == saved["confidence"].shape == saved["depth"].shape == (240, 320)
    assert Image.open("s.jpg").size == (320, 240)


def test_flow_in_words_and_as_flo(photos, capsys, monkeypatch):
    status, printed, _ = outcome(capsys, monkeypatch, "flow", "l.png", "r.png", "--out", "f.flo", "--picture", "f.png")
    assert status == 0
    assert "median flow" in printed
    assert (photos / "f.flo").stat().st_size == 12 + 8 * 320 * 240
    assert Image.open("f.png").size == (320, 240)


@pytest.mark.parametrize(("task", "criterion"), [("stereo", "LaplacianLossBounded2"), ("flow", "LaplacianLossBounded")])
def test_released_files_go_through_the_verbs(task, criterion, photos, capsys, monkeypatch):
    write_tiny_croco(photos / "model.pth", task, criterion)
    for name in ("l.png", "r.png"):
        Image.open(name).crop((0, 0, 120, 90)).save(name)
    arguments = [task, "l.png", "r.png", "--model", "model.pth", "--out", "o.npz", "--json", "--quiet"]
    status, printed, _ = outcome(capsys, monkeypatch, *arguments)
    assert status == 0
    assert json.loads(printed)["model"] == "model"
    with np.load("o.npz") as saved:
        values = saved["disparity" if task == "stereo" else "flow"]
        assert values.shape[:2] == saved["confidence"].shape == (90, 120)
        assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["stereo", "l.png", "nowhere.png"], "nowhere"),
        (["stereo", "l.png", "small.png"], "one size"),
        (["stereo", "r.png", "l.png"], "swapped"),
        (["stereo", "l.png", "r.png", "--focal", "100"], "both"),
        (["stereo", "l.png", "r.png", "--out", "s.exr"], "s.exr"),
        (["stereo", "l.png", "r.png", "--out", "l.png"], "another name"),
        (["stereo", "l.png", "r.png", "--out", "s.png", "--picture", "s.png"], "another name"),
        (["stereo", "l.png", "r.png", "--model", "l.png"], "l.png"),
        (["flow", "l.png", "text.png"], "text.png"),
        (["flow", "l.png", "small.png"], "one size"),
        (["flow", "l.png", "r.png", "--model", "raft"], "raft"),
        (["flow", "l.png", "r.png", "--picture", "f.bmp"], "f.bmp"),
        (["flow", "l.png", "r.png", "--device", "toaster", "--model", "text.png"], "text.png"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence_and_status_2(arguments, word, photos, capsys, monkeypatch):
    (photos / "text.png").write_text("no picture")
    Image.fromarray(stereo_pair().right[:200].numpy()).save(photos / "small.png")
    status, out, err = outcome(capsys, monkeypatch, *arguments)
    assert status == 2
    sentence = err.strip().splitlines()[-1]
    assert sentence.startswith("unposed: ")
    assert word in sentence
    assert "Traceback" not in err + out
