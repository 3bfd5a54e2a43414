"""How long work tells what it is doing: silent in a library, a bar in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


class Reporter(Protocol):
    """Where a task reports to."""

    def update(self, description: str, done: int, total: int) -> None:
        """``done`` of ``total`` steps of something are done; the last call for it has ``done == total``."""
        ...

    def say(self, line: str) -> None:
        """One line of news: a warning, a choice that was made."""
        ...


class Silent:
    """Reports nothing: the default of the Python API."""

    def update(self, description: str, done: int, total: int) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""


class Lines:
    """Plain lines on standard error: for logs, pipes and ``--quiet`` (news only, no progress)."""

    def __init__(self, *, seconds_between: float = 5.0) -> None:
        self._seconds_between = seconds_between
        self._last = time.monotonic()

    def update(self, description: str, done: int, total: int) -> None:
        """A line every few seconds."""
        if time.monotonic() - self._last >= self._seconds_between:
            self._last = time.monotonic()
            self.say(f"{description}: {done} of {total}")

    def say(self, line: str) -> None:
        """Write the line."""
        print(line, file=sys.stderr, flush=True)


class Bars:
    """A progress bar on a terminal's standard error, one at a time."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._shown = ""

    def update(self, description: str, done: int, total: int) -> None:
        """Move the bar of ``description``; a new description is a new bar."""
        if self._bar is None or self._shown != description:
            self._stop()
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console)
            self._bar.add_task(description, total=total)
            self._bar.start()
            self._shown = description
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)
        if done >= total:
            self._stop()

    def say(self, line: str) -> None:
        """Print the line above any bar."""
        self._console.print(line, markup=False, soft_wrap=True)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def track(report: Reporter, items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Pass ``items`` through while reporting how many of ``total`` are done."""
    for done, item in enumerate(items, start=1):
        yield item
        report.update(description, done, total)


def reporter_for(quiet: bool = False) -> Reporter:
    """Bars on a terminal, plain lines elsewhere; news only when ``quiet``."""
    if quiet:
        return Lines(seconds_between=float("inf"))
    return Bars() if sys.stderr.isatty() else Lines()
