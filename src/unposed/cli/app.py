"""What every verb shares: the app it registers with, the options all understand, and how a result is printed."""

import json as jsonlib
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from tyro.conf import arg

app = tyro.extras.SubcommandApp()


@dataclass(frozen=True)
class Common:
    """Options that every verb understands."""

    quiet: bool = False
    """Warnings and results only, no progress."""
    json: bool = False
    """Print the summary as one JSON object on standard output."""


COMMON = Common()
CommonOptions = Annotated[Common, arg(name="")]


def print_summary(summary: dict[str, Any], common: Common) -> None:
    """The result on standard output: JSON for scripts, aligned lines for people."""
    if common.json:
        print(jsonlib.dumps(summary, default=str))
        return
    width = max(map(len, summary))
    for key, value in summary.items():
        print(f"{key.replace('_', ' '):{width}}  {value}")
