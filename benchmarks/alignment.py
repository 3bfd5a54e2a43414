"""Global alignment: `unposed.align` against DUSt3R's published recipe, on the same predictions, in one run.

    python benchmarks/alignment.py --views 12 --height 288 --width 512 --steps 300

Predictions of all ordered pairs of a made-up scene are written to a temporary folder; each part runs in a process of
its own and reads them from there. The objective is the published one over all pixels of all pairs, at its scale; the
reference starts from the spanning tree and takes ``--steps`` steps of Adam over all pixels. With ``--reference-steps``
below ``--steps`` its time is extrapolated from the time of a step, and its objective is that of the steps taken. Set
OMP_NUM_THREADS=1 on a machine that does other work at the same time.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.synthetic_pairs import Noise, SyntheticScene, make_scene, predict
from unposed.align.dense import align
from unposed.align.objective import Objective, PairData, minimise_with_adam
from unposed.align.spanning_tree import parameters_from_tree, start_from_tree
from unposed.geometry.similarity import fit_camera_similarity, move_camera
from unposed.views import Pair, PairPrediction


class StoredPairs(Mapping[Pair, PairPrediction]):
    """Predictions in a folder, one file a pair, read when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pairs = sorted(
            (int(a), int(b)) for a, b in (path.stem.split("-") for path in folder.glob("*.safetensors"))
        )

    def __getitem__(self, pair: Pair) -> PairPrediction:
        return PairPrediction(**load_file(self.folder / f"{pair[0]}-{pair[1]}.safetensors"))

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


def store_pairs(scene: SyntheticScene, folder: Path, seed: int) -> None:
    count = len(scene.views)
    for i in range(count):
        for j in range(count):
            if i != j:
                prediction = predict(scene, (i, j), Noise(), seed)
                names = ("points_i", "points_j", "confidence_i", "confidence_j")
                maps = {name: getattr(prediction, name).contiguous() for name in names}
                save_file(maps, folder / f"{i}-{j}.safetensors")


def run_ours(scene: SyntheticScene, pairs: StoredPairs) -> dict:
    start, cpu = time.perf_counter(), time.process_time()
    (solved,) = align(scene.views, pairs)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "objective": solved.objective,
        **_errors(scene, solved.world_from_camera),
    }


def run_reference(scene: SyntheticScene, pairs: StoredPairs, steps: int, steps_taken: int) -> dict:
    start, start_cpu = time.perf_counter(), time.process_time()
    maps = [pairs[pair] for pair in pairs]
    data = PairData.stack(
        torch.tensor(list(pairs)),
        [one.points_i.reshape(-1, 3) for one in maps],
        [one.points_j.reshape(-1, 3) for one in maps],
        [one.confidence_i.flatten() for one in maps],
        [one.confidence_j.flatten() for one in maps],
        [view.size for view in scene.views],
    )
    del maps
    centres = scene.intrinsics[:, :2, 2].contiguous()
    parameters = parameters_from_tree(data, start_from_tree(data, centres), centres)
    objective = Objective(data)
    prepared, prepared_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    losses = list(minimise_with_adam(objective, parameters, steps_taken))
    step = (time.perf_counter() - start - prepared) / steps_taken
    step_cpu = (time.process_time() - start_cpu - prepared_cpu) / steps_taken
    with torch.no_grad():
        final = float(objective(parameters))
    return {
        "seconds": prepared + step * steps,
        "cpu_seconds": prepared_cpu + step_cpu * steps,
        "seconds_per_step": step,
        "steps_taken": steps_taken,
        "objective_at_start": losses[0],
        "objective": final,
        **_errors(scene, parameters.world_from_camera()),
    }


def _errors(scene: SyntheticScene, poses: torch.Tensor) -> dict:
    """Camera errors after the best similarity to the truth."""
    moved = move_camera(*fit_camera_similarity(poses, scene.world_from_camera), poses)
    shift = (moved[:, :3, 3] - scene.world_from_camera[:, :3, 3]).norm(dim=-1)
    return {"worst_centre_error": float(shift.max())}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--height", type=int, default=288)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--steps", type=int, default=300, help="Adam steps of the published recipe")
    parser.add_argument("--reference-steps", type=int, help="steps to really take (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["ours", "reference"], help="run one part")
    parser.add_argument(
        "--out", type=Path, help="write the numbers as JSON; parts that are not run keep their old ones"
    )
    parser.add_argument("--pairs", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _run_part(name: str, arguments: argparse.Namespace) -> None:
    """In a process of its own: print the numbers of one part as JSON."""
    scene = make_scene([(arguments.height, arguments.width)] * arguments.views, seed=arguments.seed)
    pairs = StoredPairs(arguments.pairs)
    before = _peak_rss()
    if name == "ours":
        numbers = run_ours(scene, pairs)
    else:
        numbers = run_reference(scene, pairs, arguments.steps, arguments.reference_steps or arguments.steps)
    print(json.dumps({**numbers, "peak_rss_mb": _peak_rss(), "rss_before_mb": before}))


def _peak_rss() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    arguments = _arguments()
    if arguments.pairs is not None:
        _run_part(arguments.only, arguments)
        return
    stored = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.exists() else {}
    setup = f"{arguments.views} views of {arguments.height}x{arguments.width}, {arguments.steps} steps"
    results = stored.get(setup, {})
    with tempfile.TemporaryDirectory() as folder:
        scene = make_scene([(arguments.height, arguments.width)] * arguments.views, seed=arguments.seed)
        store_pairs(scene, Path(folder), arguments.seed)
        for part in ("ours", "reference"):
            if arguments.only in (None, part):
                command = [sys.executable, "-m", "benchmarks.alignment", *sys.argv[1:]]
                command += ["--only", part, "--pairs", folder]
                root = Path(__file__).parents[1]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
                results[part] = json.loads(done.stdout.splitlines()[-1])
    print(f"{setup}, {torch.get_num_threads()} threads, {os.cpu_count()} cores")
    for part, numbers in results.items():
        print(f"{part:10}", ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
    if len(results) == 2:
        ours, reference = results["ours"], results["reference"]
        print(f"time: {reference['seconds'] / ours['seconds']:.1f} times faster than the published recipe")
        print(f"processor time: {reference['cpu_seconds'] / ours['cpu_seconds']:.1f} times less")
        print(f"objective: {ours['objective'] / reference['objective']:.5f} of the published recipe's")
        print(f"peak memory: {reference['peak_rss_mb'] / ours['peak_rss_mb']:.1f} times less")
    if arguments.out:
        arguments.out.write_text(json.dumps({**stored, setup: results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
