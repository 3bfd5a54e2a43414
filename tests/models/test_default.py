import json
from importlib.resources import files
from pathlib import Path

from unposed.models import default

CARD = Path(__file__).parents[2] / "docs" / "models" / "mini.md"


def _results() -> dict:
    return json.loads((files("unposed") / "weights" / "card.json").read_text())["results"]


def test_auto_takes_the_model_with_the_better_mean_and_says_why():
    means = {name: sum(row["auc@30"] for row in rows.values()) / len(rows) for name, rows in _results().items()}
    name, reason = default.choose_default()
    assert name == max(means, key=means.get)
    assert all(other in reason for other in means if other != name)


def test_both_offline_models_were_measured_on_the_same_sets():
    results = _results()
    assert set(results) == set(default.OFFLINE)
    assert results["mini"].keys() == results["classic"].keys()


def test_the_card_shows_the_numbers_that_decide():
    text = CARD.read_text(encoding="utf-8")
    for name, rows in _results().items():
        for row in rows.values():
            assert "/".join(f"{row[f'auc@{k}']:.2f}" for k in (5, 10, 20, 30)) in text, name
