"""Steps of training `mini`: what one encoding per view, compilation and rendering cost, on the same batch in one run.

    python benchmarks/training.py [--side 224] [--scenes 32] [--device auto] [--tiny] [--compiled]

Prints pairs a second of a gradient step for both images of every pair through the whole network (the baseline, the
published recipe), for every view encoded once, and for that compiled; with achieved TFLOP/s and the share of the stated
peak. Rendering is timed on its own: its share is of the fastest step.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from unposed.nets.precision import choose_device
from unposed.train.meter import count_flops, peak_tflops
from unposed.train.recipe import Batch
from unposed.train.recipes import PairRecipe, every_pair, mini_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--textures", type=Path)
    parser.add_argument("--tiny", action="store_true", help="the small network for a CPU")
    parser.add_argument("--compiled", action=argparse.BooleanOptionalAction, help="default: on CUDA")
    options = parser.parse_args()
    device = choose_device(options.device)
    torch.set_float32_matmul_precision("high")
    recipe = mini_recipe(options.textures, options.side, options.scenes, tiny=options.tiny)
    model = recipe.build().to(device)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {options.side} px, {device}")

    numbers = iter(range(10**9))
    rendering = _seconds(lambda: recipe.batch(next(numbers), 0.0, device), options.steps, device)
    batch = recipe.batch(0, 0.0, device)
    pairs, views = len(batch["view_1"]), len(batch["views"])
    print(f"rendering: {views / rendering:.0f} views/s ({pairs} pairs of {views} views in {rendering * 1e3:.1f} ms)")

    roads = {"every pair": _step(recipe, model, every_pair), "every view once": _step(recipe, model, recipe.forward)}
    if options.compiled if options.compiled is not None else device.type == "cuda":
        roads["every view once, compiled"] = _step(recipe, model, recipe.forward, compiled=True)
    baseline = 0.0
    for name, step in roads.items():
        seconds = _seconds(lambda step=step: step(batch).backward(), options.steps, device)
        baseline = baseline or seconds
        line = f"{name}: {pairs / seconds:.0f} pairs/s, {baseline / seconds:.2f}x"
        if "compiled" not in name:
            flops = count_flops(step, batch)
        rate = flops / seconds / 1e12
        peak = peak_tflops(device)
        print(f"{line}, {rate:.3g} TFLOP/s" + (f" ({rate / peak:.0%} of {peak:.0f})" if peak else ""))
    print(f"rendering takes {rendering / (rendering + seconds):.0%} of a step")
    if device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def _step(
    recipe: PairRecipe, model: torch.nn.Module, forward: Callable, compiled: bool = False
) -> Callable[[Batch], torch.Tensor]:
    variant = PairRecipe(recipe.name, recipe.network, recipe.source, recipe.facts, forward)

    def loss(batch: Batch) -> torch.Tensor:
        with torch.autocast(batch["views"].device.type, torch.bfloat16, enabled=batch["views"].is_cuda):
            return variant.loss(model, batch)["total"]

    return torch.compile(loss) if compiled else loss


def _seconds(work: Callable[[], object], steps: int, device: torch.device) -> float:
    """Median time of one call, after three to warm up."""
    times = []
    for k in range(steps + 3):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times += [time.perf_counter() - begun] if k >= 3 else []
    return sorted(times)[len(times) // 2]


if __name__ == "__main__":
    main()
