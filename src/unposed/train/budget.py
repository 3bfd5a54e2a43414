"""How long a run lasts: until a clock has run out, or until a number of steps is done."""

import time
from typing import Protocol


class Budget(Protocol):
    """What ends a run. The learning rate, curricula and validations follow the share of it that is used up."""

    exact: bool
    """Whether a run that was cut can go on to the very weights of one that was not; its checkpoints then hold all."""

    def share(self, step: int) -> float:
        """Share that is used up when ``step`` steps are done; the run ends at 1."""
        ...

    def keep_back(self, seconds: float) -> None:
        """The last validation and the last checkpoint will take so long, and belong to the run."""
        ...


class Clock:
    """A run of so many minutes of wall clock from now on, whatever it does in them."""

    exact = False

    def __init__(self, minutes: float) -> None:
        self._started = time.perf_counter()
        self._seconds = minutes * 60
        self._kept_back = 0.0

    def share(self, step: int) -> float:
        """Share of the time that has passed, when the last validation is expected to end with the clock."""
        return (time.perf_counter() - self._started) / max(self._seconds - self._kept_back, 1e-9)

    def keep_back(self, seconds: float) -> None:
        """At most three tenths of the clock."""
        self._kept_back = min(seconds, 0.3 * self._seconds)


class Steps:
    """A run of so many steps, those of the run that it resumes included."""

    exact = True

    def __init__(self, total: int) -> None:
        self.total = total

    def share(self, step: int) -> float:
        """Share of the steps that are done."""
        return step / self.total

    def keep_back(self, seconds: float) -> None:
        """Nothing: it takes what it takes."""
