"""Fast reciprocal matching of dense descriptors: `unposed` against the published procedure on the same input.

    python benchmarks/matching.py [--size 384 512] [--stride 8] [--channels 24] [--repeats 1] [--threads 1 2]

The plain road does what the published procedure says, step by step (MASt3R, section 3.3): points of a sparse grid go to
their best match in the other picture and back, for at most ten rounds, points that stay where they were are let go,
and what comes back to itself is a match. Every step works out blocks of 8192 x 8192 similarities and takes the largest
of their rows and of their columns, of which the rows are used. Descriptors are random unit vectors with a fixed seed,
the hardest case: nearest neighbours are far and near-equal. Prints seconds of both roads, whether they found the same
matches, and the ratio; each number of threads has a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unposed.align.reciprocal import ROUNDS, ReciprocalMatcher, start_grid

BLOCK = 8192


def best_matches(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For every row of a the most similar row of b, and the other way round, by blocks of the similarity matrix."""
    of_a, score_a = torch.zeros(len(a), dtype=torch.long), torch.full((len(a),), -torch.inf)
    of_b, score_b = torch.zeros(len(b), dtype=torch.long), torch.full((len(b),), -torch.inf)
    for i in range(0, len(a), BLOCK):
        for j in range(0, len(b), BLOCK):
            similarity = a[i : i + BLOCK] @ b[j : j + BLOCK].T
            _take_better(of_a[i : i + BLOCK], score_a[i : i + BLOCK], similarity.max(1), j)
            _take_better(of_b[j : j + BLOCK], score_b[j : j + BLOCK], similarity.max(0), i)
    return of_a, of_b


def _take_better(index: Tensor, score: Tensor, found: torch.return_types.max, offset: int) -> None:
    better = found.values > score
    index[better], score[better] = found.indices[better] + offset, found.values[better]


def plain(a: Tensor, b: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Matches (pixels of a, pixels of b), sorted."""
    flat_a, flat_b = a.flatten(0, 1), b.flatten(0, 1)
    here = start_grid(a.shape[0], a.shape[1], stride)
    there = torch.full_like(here, -1)
    moving = torch.ones_like(here, dtype=torch.bool)
    for _ in range(ROUNDS):
        found = best_matches(flat_a[here[moving]], flat_b)[0]
        moved = found != there[moving]
        there[moving] = found
        moving[moving.clone()] = moved
        found = best_matches(flat_b[there[moving]], flat_a)[0]
        moved = found != here[moving]
        here[moving] = found
        moving[moving.clone()] = moved
        if not moving.any():
            break
    pairs = torch.stack([here[~moving], there[~moving]]).unique(dim=1)
    return pairs[0], pairs[1]


def ours(a: Tensor, b: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Matches (pixels of a, pixels of b), sorted."""
    return ReciprocalMatcher(a, b).match(stride)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[384, 512], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--channels", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=1, help="the fastest counts")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_run(options)))
        return
    for threads in options.threads:
        command = [sys.executable, "-m", "benchmarks.matching", *sys.argv[1:], "--child", "--threads", str(threads)]
        root = Path(__file__).parents[1]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
        result = json.loads(done.stdout.splitlines()[-1])
        print(", ".join(f"{name}: {value}" for name, value in {"threads": threads, **result}.items()), flush=True)


def _run(options: argparse.Namespace) -> dict[str, float | int | bool]:
    torch.set_num_threads(options.threads[-1])
    torch.manual_seed(0)
    a, b = (normalize(torch.randn(*options.size, options.channels), dim=-1) for _ in range(2))
    seconds, cpu, matches = {}, {}, {}
    for name, road in (("ours", ours), ("plain", plain)):
        road(a[:32, :32], b[:32, :32], options.stride)  # first use of the kernels
        seconds[name] = cpu[name] = float("inf")
        for _ in range(options.repeats):
            wall, processor = time.perf_counter(), time.process_time()
            matches[name] = road(a, b, options.stride)
            seconds[name] = min(seconds[name], time.perf_counter() - wall)
            cpu[name] = min(cpu[name], time.process_time() - processor)
    same = all(torch.equal(mine, theirs) for mine, theirs in zip(matches["ours"], matches["plain"], strict=True))
    return {
        "matches": len(matches["ours"][0]),
        "same_matches": same,
        **{f"{name}_s": round(value, 2) for name, value in seconds.items()},
        **{f"{name}_cpu_s": round(value, 2) for name, value in cpu.items()},
        "ratio": round(seconds["plain"] / seconds["ours"], 1),
        "cpu_ratio": round(cpu["plain"] / cpu["ours"], 1),
    }


if __name__ == "__main__":
    main()
