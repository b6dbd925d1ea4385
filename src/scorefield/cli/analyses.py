"""The verbs of ``scorefield analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

analyze = typer.Typer(help="Analyses that are no runs.", rich_markup_mode=None)


@analyze.command()
def calibrate(
    repeats: Annotated[int, typer.Option(min=20, help="Repetitions behind each coverage.")] = 100,
    dims: Annotated[str, typer.Option(help="Dimensions, of 2, 64 and 784.")] = "2,64,784",
    only: Annotated[
        str | None, typer.Option(help="Instruments, as in 'loops;path gap'; all by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the table.")] = Path(
        "results/calibration"
    ),
    jobs: Annotated[int, typer.Option(min=1, help="How many processes at the same time.")] = 2,
) -> None:
    """Ask every diagnostic of fields whose answer is known: false alarms, coverage, power."""
    from scorefield.experiments.arguments import integers
    from scorefield.experiments.printing import print_table

    wanted = integers("--dims", dims)
    from scorefield.experiments.analysis import calibrate as work

    names = work.named("--only", only)
    answers = work.calibrate(repeats, out, wanted, names, jobs)
    print_table(work.COLUMNS, work.table(answers))
    print(out / work.TABLE, out / work.PICTURE, sep="\n")


@analyze.command()
def dose(
    out: Annotated[Path, typer.Option(help="The folder of the table and the figure.")] = Path(
        "results/dose"
    ),
    seed: Annotated[int, typer.Option(min=0, help="The seed of data and errors.")] = 0,
) -> None:
    """Plant errors with and without curl in an exact field: what samples and likelihood lose."""
    from scorefield.experiments.analysis.dose import Design, dose_response
    from scorefield.experiments.analysis.dose_figure import TABLE, table, write
    from scorefield.experiments.printing import print_table
    from scorefield.experiments.progress import Stages

    design = Design(seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    with Stages() as stages:
        result = dose_response(design, stages)
    print_table(TABLE, table(result, design.slice_dose))
    for file in write(result, out):
        print(file)
