"""Large collections by the sparse road: photos registered, trajectory error, time and peak memory of whole runs.

    python benchmarks/large_collections.py [--kinds street] [--photos 50 100 200] [--model mini] [--sets DIR]

Procedural walks (``unposed synth``); each run is the command line in a process of its own, and memory is its peak
resident set as the operating system counts it. ``--sets`` measures instead the photo sets of a folder, each with a
``gt.json`` of at least three posed photos, on both roads.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from memory import run_unposed

from unposed.evaluation.photo_sets import read_reference, score_cameras
from unposed.scene import Scene

STEPS = ("choice of pairs", "pairs", "mapping", "depth")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["street"])
    parser.add_argument("--photos", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--road", default="sparse")
    parser.add_argument("--sets", type=Path)
    options = parser.parse_args()
    print(f"{options.model}, {os.cpu_count()} cores")
    if options.sets:
        measure_sets(options.sets, options.model)
    else:
        measure_walks(options.kinds, options.photos, options.model, options.road)


def measure_walks(kinds: list[str], counts: list[int], model: str, road: str) -> None:
    print("| walk | photos | registered | error / extent | pairs | s a photo | " + " | ".join(STEPS) + " | peak GiB |")
    print("|" + "---|" * (7 + len(STEPS)))
    for kind in kinds:
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                photos, out = Path(folder) / "photos", Path(folder) / "out"
                run_unposed("synth", "--out", str(photos), "--kind", kind, "--photos", str(count), "--seed", "1")
                row = measure(photos, out, model, road)
            steps = " | ".join(f"{row['steps'].get(step, 0):.0f}" for step in STEPS)
            print(
                f"| {kind} | {count} | {row['registered']} | {row.get('ate_over_extent', '')} | {row['pairs']} "
                f"| {row['seconds'] / count:.2f} | {steps} | {row['peak_gib']:.2f} |",
                flush=True,
            )


def measure_sets(sets: Path, model: str) -> None:
    print("| set | road | registered | AUC@5 | AUC@30 | focal error | s |")
    print("|---|---|---|---|---|---|---|")
    for photos in sorted(path.parent for path in sets.glob("*/gt.json")):
        if len(read_reference(photos)) < 3:
            continue
        for road in ("dense", "sparse"):
            with tempfile.TemporaryDirectory() as folder:
                row = measure(photos, Path(folder) / "out", model, road)
            print(
                f"| {photos.name} | {road} | {row['registered']} / {row['photos']} | {row['auc@5']} | {row['auc@30']} "
                f"| {row.get('focal_error_median', '')} | {row['seconds']:.0f} |",
                flush=True,
            )


def measure(photos: Path, out: Path, model: str, road: str) -> dict:
    """Scores of one run."""
    started = time.monotonic()
    run = run_unposed(
        "reconstruct", str(photos), "--out", str(out), "--model", model, "--road", road, "--json", "--quiet"
    )
    seconds = time.monotonic() - started
    scene = Scene.load(out)
    steps = json.loads(run["stdout"])["seconds"]
    return score_cameras(scene.cameras, read_reference(photos)) | {
        "seconds": seconds,
        "steps": steps,
        "pairs": scene.provenance["pairs"],
        "peak_gib": run["peak_gib"],
    }


if __name__ == "__main__":
    main()
