import pytest

from unposed.tasks.progress import Bars, Lines, Silent, track


@pytest.mark.parametrize("report", [Silent(), Lines(seconds_between=0), Bars()])
def test_items_pass_through(report) -> None:
    assert list(track(report, iter("abc"), 3, "letters")) == ["a", "b", "c"]
    report.say("[done]")


def test_lines_tell_how_far_it_is(capsys) -> None:
    list(track(Lines(seconds_between=0), range(2), 2, "steps"))
    assert capsys.readouterr().err.splitlines() == ["steps: 1 of 2", "steps: 2 of 2"]


def test_quiet_lines_are_news_only(capsys) -> None:
    quiet = Lines(seconds_between=float("inf"))
    list(track(quiet, range(5), 5, "steps"))
    quiet.say("news")
    assert capsys.readouterr().err == "news\n"


def test_bars_print_brackets_as_they_are(capsys) -> None:
    Bars().say("skipped [a].jpg")
    assert "[a].jpg" in capsys.readouterr().err
