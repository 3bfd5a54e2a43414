import json
import math

import pytest

from tests.tasks.perfect import rendered, write_photos
from tests.test_cli import outcome


@pytest.fixture
def photo(tmp_path):
    write_photos(tmp_path / "photos", rendered(1))
    return tmp_path / "photos" / "0.png"


def test_json_has_every_number(photo, capsys, monkeypatch):
    status, out, err = outcome(capsys, monkeypatch, "intrinsics", str(photo), "--json", "--quiet", "--model", "mini")
    assert status == 0
    facts = json.loads(out)["photos"]["0.png"]
    assert facts["intrinsics"] == [[128, 0, 63.5], [0, 128, 47.5], [0, 0, 1]]
    assert facts["focal"] == 128
    assert facts["principal_point"] == [63.5, 47.5]
    assert facts["fov_deg"] == pytest.approx([math.degrees(2 * math.atan(0.5)), math.degrees(2 * math.atan(0.375))])
    assert facts["exif_focal"] is None
    assert facts["method"] == "prior"
    assert facts["spread"] == pytest.approx(0.5)
    assert "guess" in err


def test_people_get_a_table(photo, capsys, monkeypatch):
    status, out, _ = outcome(capsys, monkeypatch, "intrinsics", str(photo))
    assert status == 0
    assert "0.png" in out
    assert "128.0" in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["intrinsics"], "photos"),
        (["intrinsics", "nowhere/"], "nowhere"),
        (["intrinsics", "{photo}", "--model", "dust4r"], "dust4r"),
        (["intrinsics", "{photo}", "--principal-point", "free"], "principal point"),
        (["intrinsics", "{photo}", "--every", "5"], "video"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(arguments, word, photo, capsys, monkeypatch):
    status, out, err = outcome(capsys, monkeypatch, *(argument.format(photo=photo) for argument in arguments))
    assert status == 2
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("unposed: ")
    assert word in last
    assert "Traceback" not in err
