"""The verb of many runs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from scorefield.cli.arguments import Integers, integers, settings, split
from scorefield.cli.options import ROOT, Chosen, Root, complete_presets, on_engine
from scorefield.cli.results import Results, ending_in_results
from scorefield.errors import UserError


@ending_in_results
@on_engine
def sweep(
    engine: Chosen,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="PRESETS [A.B=C]...",
            help="Presets, as in 'toy/*', or files, followed by overrides.",
            autocompletion=complete_presets,
        ),
    ],
    seeds: Annotated[
        Integers, typer.Option(parser=integers, metavar="N,N...", help="Seeds, as in 0,1,2.")
    ] = Integers((0,)),
    root: Root = ROOT,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="The number of parallel processes; by default 1, or all on a cluster."
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
) -> Results:
    """Train several presets with several seeds.

    Jobs of a cluster outlive this command; started again, it waits for those in the queue.
    """
    from scorefield.comparison.sweep import (
        drawing_of,
        exit_status,
        on_cluster,
        plan,
        run,
        summary,
    )

    names, overrides = split(arguments)
    planned = plan(names, seeds, overrides, root)
    options = settings(slurm or [])
    if cluster == "local" and options:
        raise UserError("--slurm is for jobs of a cluster: give --cluster slurm too")
    executor = None if cluster == "local" else on_cluster(root, jobs, options)
    outcomes = run(planned, root, jobs or 1, evaluate, drawing_of, engine, executor)
    rows, notes = summary(planned, outcomes)
    return Results(rows=rows, notes=notes, status=exit_status(outcomes))
