"""Leave-one-out localisation on photo sets with reference cameras: ``python benchmarks/localize.py SET...``.

A set is a folder with photos, ``gt.json`` and a COLMAP model in ``colmap/``. Every photo is localised against the
cameras of all others, without any 3D of the map. Prints a row a set.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from unposed.evaluation.photo_sets import read_reference
from unposed.evaluation.pose import rotation_error
from unposed.tasks.inputs import as_model, as_photo
from unposed.tasks.localize import TOP_K
from unposed.tasks.localizer import Localizer
from unposed.tasks.posed_map import read_map
from unposed.tasks.progress import Silent


def main() -> None:
    """Run the sets that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--top-k", type=int, default=TOP_K)
    options = parser.parse_args()
    model = as_model(options.model, "auto", Silent())
    print(
        "set, placed, median deg, median % of extent, worst deg, worst %, error / sigma (rotation, position), s a query"
    )
    for folder in options.sets:
        everything, truth = read_map(folder / "colmap", None, Silent()), read_reference(folder)
        centres = torch.stack([camera.centre.double() for camera in truth.values()])
        extent = float((centres - centres.mean(0)).norm(dim=-1).max())
        rows, seconds = [], 0.0
        for left_out in everything.references:
            others = tuple(reference for reference in everything.references if reference is not left_out)
            localizer = Localizer(replace(everything, references=others), model, top_k=options.top_k)
            result = localizer.locate(as_photo(folder / left_out.name))
            seconds += result.seconds
            if result.world_from_camera is None or not result.rotation_sigma or not result.position_sigma:
                print(f"  {left_out.name}: {result.reason}")
                continue
            want, got = truth[left_out.name].world_from_camera.double(), result.world_from_camera
            turn = float(rotation_error(got[:3, :3], want[:3, :3]))
            shift = float((got[:3, 3] - want[:3, 3]).norm())
            rows.append([turn, 100 * shift / extent, turn / result.rotation_sigma, shift / result.position_sigma])
        table, count = torch.tensor(rows).reshape(-1, 4), len(everything.references)
        middle = table.quantile(0.5, dim=0).tolist() if rows else [float("nan")] * 4
        worst = table.amax(0).tolist() if rows else [float("nan")] * 4
        print(
            f"{folder.name}, {len(rows)} of {count}, {middle[0]:.3f}, {middle[1]:.3f}, {worst[0]:.3f}, {worst[1]:.3f}, "
            f"{middle[2]:.2f}, {middle[3]:.2f}, {seconds / count:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
