"""The command line: one file and one typed function a verb, no logic.

Exit status: 0 done, 2 something you can mend (one sentence says what), 130 interrupted.
"""

import os
import sys

from unposed import __version__
from unposed.cli.app import app
from unposed.errors import UserError

# Each module registers its verb, in the order of the help page.
# isort: off
from unposed.cli import reconstruct, add, view
from unposed.cli import depth, match, pose, intrinsics, localize, stereo, flow
from unposed.cli import models, eval, synth, train
# isort: on

__all__ = [
    "add",
    "depth",
    "eval",
    "flow",
    "intrinsics",
    "localize",
    "main",
    "match",
    "models",
    "pose",
    "reconstruct",
    "stereo",
    "synth",
    "train",
    "view",
]


def main() -> None:
    """Entry point: errors a user can mend end in one sentence and status 2."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads sleep, which busy machines need
    if sys.argv[1:] in (["--version"], ["-V"]):
        print(f"unposed {__version__}")
        return
    try:
        app.cli(prog="unposed", description="3D from photos nobody calibrated.")
    except UserError as error:
        print(f"unposed: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("unposed: interrupted; the same command again continues where this one stopped", file=sys.stderr)
        sys.exit(130)
