"""Whole reconstructions of photo sets with reference cameras, by each offline model: the table of the model cards.

    python benchmarks/real_photos.py SETS_DIR [--models classic mini] [--json results.json]

Each folder of SETS_DIR with a gt.json of two or more posed photos is one set; the references are used for scoring only.
``--card`` writes the results where ``--model auto`` reads them.
"""

import argparse
import json
import time
from pathlib import Path

from unposed.errors import UserError
from unposed.evaluation.photo_sets import read_reference, score_cameras
from unposed.tasks.reconstruct import reconstruct

CARD = Path(__file__).parent.parent / "src" / "unposed" / "weights" / "card.json"
COLUMNS = ("registered", "photos", "rotation_median_deg", "translation_median_deg", "auc@5", "auc@10", "auc@20",
           "auc@30", "focal_error_median", "seconds")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--models", nargs="+", default=["classic", "mini"])
    parser.add_argument("--only", nargs="*", help="names of sets")
    parser.add_argument("--plain", action="store_true", help="without bundle adjustment")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--card", action="store_true")
    options = parser.parse_args()
    results: dict[str, dict[str, dict]] = {}
    for model in options.models:
        for directory in sorted(path.parent for path in options.sets.glob("*/gt.json")):
            if options.only and directory.name not in options.only:
                continue
            truth = read_reference(directory)
            if len(truth) < 2:
                continue
            row = evaluate(directory, truth, model, bundle=not options.plain)
            results.setdefault(model, {})[directory.name] = row
            print(model, directory.name, json.dumps(row), flush=True)
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if options.card:
        CARD.write_text(json.dumps({"results": results}, indent=1) + "\n")


def evaluate(directory: Path, truth: dict, model: str, bundle: bool) -> dict:
    started = time.monotonic()
    try:
        cameras = reconstruct(directory, model=model, bundle=bundle).cameras
    except UserError as error:
        return {"error": str(error)} | score_cameras({}, truth) | {"seconds": 0.0}
    return score_cameras(cameras, truth) | {"seconds": round(time.monotonic() - started, 1)}


def table(results: dict[str, dict[str, dict]]) -> str:
    lines = ["| model | set | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (len(COLUMNS) + 2)]
    for model, sets in results.items():
        lines += [
            f"| {model} | {name} | " + " | ".join(str(row.get(c, "")) for c in COLUMNS) + " |"
            for name, row in sets.items()
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
