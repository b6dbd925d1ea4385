"""The verbs of many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from scorefield.cli.arguments import Chosen, Integers, integers, on_engine, settings, split
from scorefield.cli.printing import print_table
from scorefield.errors import UserError


def drawing_of(source: Any) -> Any:
    """What draws a training on the data; for a sweep's processes, which alone import torch."""
    from scorefield.plotting import training_figures

    return training_figures(source.truth)


@on_engine
def sweep(
    engine: Chosen,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="PRESETS [A.B=C]...",
            help="Presets, as in 'toy/*', or files, followed by overrides.",
        ),
    ],
    seeds: Annotated[
        Integers, typer.Option(parser=integers, metavar="N,N...", help="Seeds, as in 0,1,2.")
    ] = Integers((0,)),
    root: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("runs"),
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="The number of runs at the same time; by default 1, or all on a cluster."
        ),
    ] = None,
    evaluate: Annotated[
        bool,
        typer.Option("--eval", help="Evaluate each run after training, and time the models."),
    ] = False,
    cluster: Annotated[
        Literal["local", "slurm"],
        typer.Option(help="Where: in processes of this machine, or as jobs of a SLURM cluster."),
    ] = "local",
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="A=B", help="A resource of each job, as in time=600 (minutes)."),
    ] = None,
) -> int:
    """Train several presets with several seeds.

    Jobs of a cluster outlive this command; started again, it waits for those in the queue.
    """
    from scorefield.comparison.sweep import exit_status, on_cluster, plan, run, summary

    names, overrides = split(arguments)
    planned = plan(names, seeds, overrides, root)
    options = settings(slurm or [])
    if cluster == "local" and options:
        raise UserError("--slurm is for jobs of a cluster: give --cluster slurm too")
    executor = None if cluster == "local" else on_cluster(root, jobs, options)
    outcomes = run(planned, root, jobs or 1, evaluate, drawing_of, engine, executor)
    print_table(*summary(planned, outcomes))
    return exit_status(outcomes)


def status(
    root: Annotated[Path, typer.Argument(help="The folder of all runs.")] = Path("runs"),
) -> None:
    """Show the progress of all runs, and their jobs on a cluster."""
    from scorefield.comparison.status import progress

    print_table(*progress(root))
