import json

import pytest
import torch

from tests.tasks.perfect import rendered, write_photos
from tests.test_cli import outcome


@pytest.fixture
def photos(tmp_path):
    write_photos(tmp_path / "photos", rendered(2))
    return tmp_path / "photos"


def test_json_holds_the_pose_and_the_verdict(photos, capsys, monkeypatch):
    arguments = ["pose", str(photos / "0.png"), str(photos / "1.png"), "--json", "--quiet", "--model", "classic"]
    status, printed, _ = outcome(capsys, monkeypatch, *arguments, "--focal-a", "90", "--focal-b", "90")
    assert status == 0
    facts = json.loads(printed)
    pose = torch.tensor(facts["b_from_a"], dtype=torch.float64)
    torch.testing.assert_close(pose[:3, :3] @ pose[:3, :3].T, torch.eye(3, dtype=torch.float64))
    assert float(pose[:3, 3].norm()) == pytest.approx(1)
    assert facts["scale"] == "unit"
    assert facts["method"] == "essential"
    assert isinstance(facts["inliers"], int)
    assert facts["reliable"] is (facts["reason"] == "")
    assert facts["intrinsics_a"][0][0] == pytest.approx(90)
    assert facts["rotation_degrees"] >= 0


def test_in_words_for_a_person(photos, capsys, monkeypatch):
    arguments = ["pose", str(photos / "0.png"), str(photos / "1.png"), "--quiet", "--model", "classic"]
    status, printed, _ = outcome(capsys, monkeypatch, *arguments, "--method", "pnp")
    assert status == 0
    assert "reliable" in printed
    assert "baselines right, below and ahead of a" in printed
    assert "pnp" in printed


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["pose", "{photos}/0.png", "nowhere.jpg"], "nowhere"),
        (["pose", "{photos}", "{photos}/1.png"], "one"),
        (["pose", "{photos}/0.png", "{photos}/1.png", "--model", "dust4r"], "dust4r"),
        (["pose", "{photos}/0.png", "{photos}/1.png", "--focal-a", "0"], "focal"),
        (["pose", "{photos}/0.png", "{photos}/1.png", "--device", "toaster", "--model", "classic"], "toaster"),
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
