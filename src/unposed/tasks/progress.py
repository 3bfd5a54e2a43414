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

    def track(self, items: Iterable[T], total: int, description: str) -> Iterator[T]:
        """Pass ``items`` through while showing how many of ``total`` are done."""
        ...

    def say(self, line: str) -> None:
        """One line of news (a warning, a choice that was made)."""
        ...


class Silent:
    """Reports nothing: the default of the Python API."""

    def track(self, items: Iterable[T], total: int, description: str) -> Iterator[T]:
        """Pass ``items`` through."""
        yield from items

    def say(self, line: str) -> None:
        """Drop the line."""


class Lines:
    """Plain lines on standard error: for logs, pipes and ``--quiet`` (news only, no progress)."""

    def __init__(self, *, progress_every: float = 5.0):
        self._every = progress_every

    def track(self, items: Iterable[T], total: int, description: str) -> Iterator[T]:
        """Pass ``items`` through, with a line every few seconds."""
        last = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            if time.monotonic() - last >= self._every:
                last = time.monotonic()
                self.say(f"{description}: {done} of {total}")

    def say(self, line: str) -> None:
        """Write the line."""
        print(line, file=sys.stderr, flush=True)


class Bars:
    """A progress bar on a terminal's standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def track(self, items: Iterable[T], total: int, description: str) -> Iterator[T]:
        """Pass ``items`` through under a bar."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            yield from progress.track(items, total=total, description=description)

    def say(self, line: str) -> None:
        """Print the line above any bar."""
        self._console.print(line, markup=False, soft_wrap=True)


def reporter_for(quiet: bool = False) -> Reporter:
    """Bars on a terminal, plain lines elsewhere; news only when ``quiet``."""
    if quiet:
        return Lines(progress_every=float("inf"))
    return Bars() if sys.stderr.isatty() else Lines()
