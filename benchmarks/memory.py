"""Peak memory and time of whole runs against the number of photos, with a sliding-window graph.

    python benchmarks/memory.py [--model mini] [--views 10 30 100] [--graph swin-3-noncyclic]

The photos are procedural; each run is the command line in a process of its own, and memory is its peak resident set as
the operating system counts it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--views", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--graph", default="swin-3-noncyclic")
    options = parser.parse_args()
    print(f"{options.model}, {options.graph}, {os.cpu_count()} cores")
    print("| photos | pairs s | alignment s | refinement s | peak GiB | registered |")
    print("|---|---|---|---|---|---|")
    for count in options.views:
        with tempfile.TemporaryDirectory() as folder:
            photos, out = Path(folder) / "photos", Path(folder) / "out"
            run_unposed("synth", "--out", str(photos), "--photos", str(count), "--seed", "1")
            run = run_unposed(
                "reconstruct", str(photos), "--out", str(out), "--model", options.model, "--graph", options.graph,
                "--road", "dense", "--json", "--quiet",
            )  # fmt: skip
        facts, seconds = json.loads(run["stdout"]), json.loads(run["stdout"])["seconds"]
        times = " | ".join(f"{seconds[name]:.0f}" for name in ("pairs", "alignment", "refinement"))
        print(f"| {count} | {times} | {run['peak_gib']:.2f} | {facts['registered']} |", flush=True)


def run_unposed(*arguments: str) -> dict:
    """Run the command line; its output and its own peak memory."""
    command = [sys.executable, "-m", "unposed.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return {"stdout": output, "peak_gib": usage.ru_maxrss / 2**20}


if __name__ == "__main__":
    main()
