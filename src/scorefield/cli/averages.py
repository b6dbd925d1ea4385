"""The verb that makes averages of the weights after a training."""

from __future__ import annotations

from typing import Annotated

import typer

from scorefield.cli.options import ROOT, Overwrite, Root, RunName, Step, TrustCode
from scorefield.cli.results import Results, ending_in_results


@ending_in_results
def ema(
    run: RunName,
    length: Annotated[
        float,
        typer.Option(
            help="The length of the average: its standard deviation, relative to the run."
        ),
    ],
    step: Step = None,
    root: Root = ROOT,
    overwrite: Overwrite = False,
    trust_code: TrustCode = False,
) -> Results:
    """Average the weights of a run over another length, as a run beside it.

    The run has to be trained with train.snapshot_every.
    """
    from scorefield.runs.averaged import averaged
    from scorefield.runs.find import find_run
    from scorefield.runs.run import Run

    made, found = averaged(Run.open(find_run(run, root), trust_code), length, step, overwrite)
    row = {"length": length, "steps": made.config.train.steps, "relative error": found.error}
    return Results(rows=[row], files=[made.folder])
