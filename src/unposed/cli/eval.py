"""`unposed eval`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unposed.cli.app import COMMON, CommonOptions, app, print_summary
from unposed.tasks.progress import reporter_for


@app.command(name="eval")
def evaluate(
    benchmark: Annotated[Positional[str], arg(metavar="BENCHMARK")],
    root: Annotated[Positional[Path], arg(metavar="ROOT")],
    model: str = "auto",
    out: Path = Path("eval"),
    baseline: bool = False,
    reader: str | None = None,
    scenes: tuple[str, ...] = (),
    limit: int | None = None,
    device: str = "auto",
    common: CommonOptions = COMMON,
) -> None:
    """Measure a model on a benchmark, or on your own photos with known cameras.

    Prints a table and writes into OUT a row a sequence (.jsonl), the table (.md) and everything (.json). Sequences that
    fail count as the worst. An interrupted run continues when the same command is given again.

    Examples:
        unposed eval photos my_sets/ --baseline
        unposed eval scannet1500 data/scannet1500 --model dust3r-512-dpt --device cuda
        unposed eval co3d-pose-10 data/co3d --scenes apple --limit 20

    Args:
        benchmark: photos (folders with a gt.json), or the name of a benchmark (a wrong name lists them).
        root: Folder of the data.
        model: Name (see `unposed models`), path to a released file, or auto.
        out: Folder for the results.
        baseline: Measure the benchmark's plain baseline (SIFT and an essential matrix; constant depth) too.
        reader: Layout of the data where it is not the benchmark's own, say kitti-gathered (a wrong name lists them).
        scenes: Only these scenes, by the data set's names.
        limit: Only the first so many sequences or pairs.
        device: auto, cpu, cuda, cuda:1 or mps.
        common: Options of every verb.
    """
    from unposed.evaluation.benchmarks import BENCHMARKS
    from unposed.evaluation.results import encoded
    from unposed.evaluation.run import evaluate as run
    from unposed.evaluation.run import table

    outcomes = run(
        benchmark,
        root,
        model=model,
        out=out,
        baseline=baseline,
        reader=reader,
        scenes=scenes or None,
        limit=limit,
        device=device,
        report=reporter_for(common.quiet),
    )
    if not common.json:
        print(table(BENCHMARKS[benchmark], outcomes))
    means = {outcome.method: dict(outcome.summary) for outcome in outcomes}
    print_summary(encoded(means) if common.json else {"results": out / f"{benchmark}.md"}, common)
