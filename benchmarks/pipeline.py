"""From photos to a scene: `unposed` against the plain recipe, on the same photos and the same weights, in one run.

    python benchmarks/pipeline.py [--views 10] [--config dust3r-224-linear] [--steps 300]

The plain recipe is what the reference does: both photos of every ordered pair go through the whole network in float32
(nothing is encoded once), all pointmaps stay in memory, and DUSt3R's objective is minimised over all pixels by Adam for
300 steps. Weights are random with a fixed seed, so nothing is downloaded; the photos are procedural. Prints seconds of
both halves for both roads, peak memory, and ratios.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from unposed.align.dense import align
from unposed.align.graph import make_pairs
from unposed.align.objective import Objective, PairData, minimise_with_adam
from unposed.align.spanning_tree import parameters_from_tree, start_from_tree
from unposed.io.pairs_cache import PairCache
from unposed.io.photos import find_photos, make_views
from unposed.models.batching import image_batch
from unposed.models.dust3r import Dust3r, Dust3rConfig
from unposed.models.inference import predict_pairs
from unposed.nets.precision import choose_dtype, prepare_for_inference
from unposed.tasks.synth import synthesize
from unposed.views import View

CONFIGURATIONS = {
    "dust3r-224-linear": Dust3rConfig(img_size=(224, 224), head_type="linear"),
    "dust3r-512-linear": Dust3rConfig(head_type="linear"),
    "dust3r-512-dpt": Dust3rConfig(),
}


def ours(views: list[View], network: Dust3r, folder: Path, steps: int) -> dict[str, float]:
    """Encode once, decode the pairs, cache them on disk, align."""
    prepare_for_inference(network, torch.device("cpu"), choose_dtype("auto", torch.device("cpu")))
    pairs = make_pairs("complete", len(views))
    cache = PairCache.open(folder / "pairs", "benchmark")
    started = time.perf_counter()
    for pair, prediction in predict_pairs(network, views, pairs):
        cache.put(pair, prediction)
    inferred = time.perf_counter()
    align(views, cache)
    return _times(started, inferred)


def plain(views: list[View], network: Dust3r, folder: Path, steps: int) -> dict[str, float]:
    """Both photos of every ordered pair through the network in float32; the published alignment over all pixels."""
    network.eval().requires_grad_(False)
    pairs = list(itertools.permutations(range(len(views)), 2))
    started = time.perf_counter()
    maps = [network(*(image_batch([views[k]], torch.device("cpu")) for k in pair)) for pair in pairs]
    inferred = time.perf_counter()
    sides = [[pair[side] for pair in maps] for side in (0, 1)]
    data = PairData.stack(
        torch.tensor(pairs),
        *([m["points"].reshape(-1, 3) for m in side] for side in sides),
        *([m["confidence"].flatten() for m in side] for side in sides),
        [view.size for view in views],
    )
    del maps, sides
    centres = torch.tensor([[view.size[1] / 2, view.size[0] / 2] for view in views])
    parameters = parameters_from_tree(data, start_from_tree(data, centres), centres)
    for _ in minimise_with_adam(Objective(data), parameters, steps):
        pass
    return _times(started, inferred)


def _times(started: float, inferred: float) -> dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    now = time.perf_counter()
    return {
        "inference_s": inferred - started,
        "alignment_s": now - inferred,
        "total_s": now - started,
        "process_cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_gib": usage.ru_maxrss / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=10)
    parser.add_argument("--config", choices=CONFIGURATIONS, default="dust3r-224-linear")
    parser.add_argument("--steps", type=int, default=300, help="Adam steps of the plain alignment")
    parser.add_argument("--road", choices=["plain", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.road:
        print(json.dumps(_run(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        synthesize(Path(folder) / "photos", photos=options.views, seed=3)
        results = {road: _child(road, Path(folder)) for road in ("ours", "plain")}
    print(f"{options.config}, {options.views} views, complete graph, {options.steps} steps, {os.cpu_count()} cores")
    for road, result in results.items():
        print(f"{road:6}", ", ".join(f"{name} {value:.2f}" for name, value in result.items()))
    for key, value in results["ours"].items():
        print(f"{key}: {results['plain'][key] / value:.2f} times less than plain")


def _run(options: argparse.Namespace) -> dict[str, float]:
    torch.manual_seed(0)
    network = Dust3r(CONFIGURATIONS[options.config])
    views = make_views(find_photos(options.folder / "photos").photos, network.image_rule)
    return {"plain": plain, "ours": ours}[options.road](views, network, options.folder, options.steps)


def _child(road: str, folder: Path) -> dict[str, float]:
    """Each road in a process of its own, so that peak memory is its own."""
    command = [sys.executable, "-m", "benchmarks.pipeline", *sys.argv[1:], "--road", road, "--folder", str(folder)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
