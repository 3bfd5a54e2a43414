import json

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.tasks.perfect import rendered, write_photos
from tests.test_cli import outcome


@pytest.fixture
def photos(tmp_path):
    write_photos(tmp_path / "photos", rendered(3))
    return tmp_path / "photos"


def test_two_photos_give_an_npz_and_a_picture(photos, tmp_path, capsys, monkeypatch):
    out, picture = tmp_path / "m.npz", tmp_path / "m.png"
    arguments = ["match", str(photos / "0.png"), str(photos / "1.png"), "--out", str(out), "--picture", str(picture)]
    status, printed, _ = outcome(capsys, monkeypatch, *arguments, "--model", "classic", "--json", "--quiet")
    assert status == 0
    facts = json.loads(printed)
    with np.load(out) as file:
        assert file["points_a"].shape == file["points_b"].shape == (facts["matches"], 2)
        assert file["confidence"].shape == (facts["matches"],)
        assert facts["matches"] > 20
        assert file["points_a"].max(0)[0] < 128
    assert facts["photos"] == ["0.png", "1.png"]
    assert facts["written"] == [str(out), str(picture)]
    assert Image.open(picture).size == (1128, 420)


def test_a_folder_gives_hloc_files_and_a_database(photos, tmp_path, capsys, monkeypatch):
    for name, written in (("m.h5", ["m.h5", "m-features.h5"]), ("m.db", ["m.db"])):
        arguments = ["match", str(photos), "--out", str(tmp_path / name), "--graph", "swin-1-noncyclic"]
        status, printed, _ = outcome(capsys, monkeypatch, *arguments, "--model", "classic", "--json", "--quiet")
        assert status == 0
        facts = json.loads(printed)
        assert facts["pairs"] == 2
        assert facts["written"] == [str(tmp_path / each) for each in written]
    with h5py.File(tmp_path / "m.h5") as matches, h5py.File(tmp_path / "m-features.h5") as features:
        index = matches["0.png/1.png/matches0"][:]
        assert len(index) == len(features["0.png/keypoints"])
        assert index.max() < len(features["1.png/keypoints"])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["match"], "two"),
        (["match", "{photos}"], "two"),
        (["match", "--out", "m.h5"], "folder"),
        (["match", "{photos}", "--out", "m.csv"], ".npz"),
        (["match", "{photos}/0.png", "nowhere.jpg"], "nowhere"),
        (["match", "{photos}", "--out", "m.db", "--picture", "m.png"], "picture"),
        (["match", "{photos}/0.png", "{photos}/1.png", "--out", "m.h5", "--picture", "m.png"], "picture"),
        (["match", "{photos}/0.png", "{photos}/1.png", "--picture", "m.txt"], ".png"),
        (["match", "{photos}/0.png", "--out", "m.h5"], "two"),
        (["match", "{photos}", "--out", "m.h5", "--fine"], "two photos"),
        (["match", "{photos}/0.png", "{photos}/1.png", "--fine", "--model", "classic"], "leave --fine out"),
        (["match", "{photos}", "--out", "m.h5", "--graph", "webbed", "--model", "classic"], "webbed"),
        (["match", "{photos}", "--out", "m.h5", "--model", "dust4r"], "dust4r"),
        (["match", "{photos}", "--out", "m.h5", "--device", "toaster"], "toaster"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence_and_status_2(arguments, word, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = outcome(capsys, monkeypatch, *(a.format(photos=photos) for a in arguments), "--quiet")
    assert status == 2
    sentence = err.strip().splitlines()[-1]
    assert sentence.startswith("unposed: ")
    assert word in sentence
    assert "Traceback" not in err + out
    assert not list(tmp_path.glob("m*.*"))
