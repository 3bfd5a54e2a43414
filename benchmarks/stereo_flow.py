"""Errors of disparity and flow on procedural pairs with exact truth, and of disparity on a real pair.

    python benchmarks/stereo_flow.py [--model classic] [--real FOLDER]

FOLDER holds 000.jpg (left), 001.jpg (right) and 000_disparity.png (16 bit, disparity * 256, 0 unknown). Errors count
the pixels that both photos show (procedural) or whose disparity was measured (real). For stereo ``known`` is the share
of them that has an answer and the errors are of those; ``bad@2 all`` counts those without an answer as wrong.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

import unposed
from unposed.io.flow_files import read_disparity
from unposed.synth import covisibility, optical_flow, procedural_textures
from unposed.synth.stereo import render_stereo
from unposed.synth.tour import render_tour

SEEDS = range(3)
KINDS = ("tabletop", "room", "street", "clutter")
SIZE = (480, 640)
BASELINE = 0.1
"""Metres."""


def stereo_row(name: str, left: object, right: object, truth: Tensor, counted: Tensor, model: str) -> list[str]:
    """Errors of one pair; ``counted`` are the pixels to look at."""
    start = time.perf_counter()
    result = unposed.stereo(left, right, model=model)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    known = counted & (result.disparity > 0)
    error = (result.disparity - truth).abs()
    sure = known & (result.confidence > 0.9)
    values = (
        known.sum() / counted.sum(),
        error[known].mean(),
        100 * (error[known] > 2).float().mean(),
        100 * (error[sure] > 2).float().mean(),
        100 * (error[counted] > 2).float().mean(),
    )
    return [name, *(f"{float(value):.2f}" for value in values), f"{seconds:.1f}"]


def flow_row(name: str, kind: str, seed: int, step: float, model: str) -> list[str]:
    """Errors between two photos that are taken ``step`` degrees apart around a scene."""
    views = render_tour(seed, kind, 2, *SIZE, procedural_textures(), step=step)
    photos = (views.images[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    truth, seen = optical_flow(views, 0, 1)[0], covisibility(views, 0, 1)[0]
    start = time.perf_counter()
    result = unposed.flow(photos[0], photos[1], model=model)
    seconds = time.perf_counter() - start
    error = (result.flow - truth).norm(dim=-1)
    sure = seen & (result.confidence > 0.5)
    values = (
        truth.norm(dim=-1)[seen].median(),
        error[seen].mean(),
        100 * (error[seen] > 3).float().mean(),
        sure.sum() / seen.sum(),
        error[sure].mean(),
    )
    return [name, *(f"{float(value):.2f}" for value in values), f"{seconds:.1f}"]


def mean_row(name: str, rows: list[list[str]]) -> list[str]:
    """Mean of every column."""
    columns = zip(*(row[1:] for row in rows), strict=True)
    return [name, *(f"{sum(map(float, column)) / len(column):.2f}" for column in columns)]


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="classic")
    parser.add_argument("--task", choices=("stereo", "flow", "both"), default="both")
    parser.add_argument("--real", type=Path)
    options = parser.parse_args()
    if options.task != "flow":
        print("| stereo | known | mean error | bad@2 | bad@2, confidence > 0.9 | bad@2 all | seconds |")
        for kind in KINDS:
            pairs = [render_stereo(seed, kind, *SIZE, baseline=BASELINE) for seed in SEEDS]
            rows = [
                stereo_row(kind, p.left.numpy(), p.right.numpy(), p.disparity, p.seen, options.model) for p in pairs
            ]
            print("|", " | ".join(mean_row(kind, rows)), "|")
        if options.real:
            truth = read_disparity(options.real / "000_disparity.png")
            photos = (options.real / "000.jpg", options.real / "001.jpg")
            print("|", " | ".join(stereo_row(options.real.name, *photos, truth, truth > 0, options.model)), "|")
    if options.task != "stereo":
        print("| flow | median length | EPE | bad@3 | share with confidence > 0.5 | their EPE | seconds |")
        for step in (2.0, 6.0):
            for kind in KINDS:
                rows = [flow_row(kind, kind, seed, step, options.model) for seed in SEEDS]
                print("|", " | ".join(mean_row(f"{kind}, {step:.0f} degrees apart", rows)), "|")


if __name__ == "__main__":
    main()
