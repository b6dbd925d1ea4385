"""The verb that makes averages of the weights after a training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ema(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    length: Annotated[
        float,
        typer.Option(
            help="The length of the average: its standard deviation, relative to the run."
        ),
    ],
    step: Annotated[
        int | None, typer.Option(help="The step of the checkpoint; the newest by default.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run that is there.")
    ] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Import custom classes that the run names.")
    ] = False,
) -> None:
    """Average the weights of a run over another length, as a run beside it.

    The run has to be trained with train.snapshot_every.
    """
    from scorefield.runs.averaged import averaged
    from scorefield.runs.run import Run

    made, found = averaged(Run.open(run, trust_code), length, step, overwrite)
    print(f"an average of length {length}, whose profile is met within {found.error:.2%}")
    print(made.folder)
