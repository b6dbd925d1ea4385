"""The verbs of the command line, by their names.

Libraries are imported inside the verbs, so that help and the list of presets answer at once.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from scorefield.cli.analyses import analyze
from scorefield.cli.averages import ema
from scorefield.cli.checks import check
from scorefield.cli.datasets import data
from scorefield.cli.evaluations import evaluate
from scorefield.cli.exports import export
from scorefield.cli.likelihoods import likelihood
from scorefield.cli.reports import inspect, presets, report, runs
from scorefield.cli.sampling import sample
from scorefield.cli.sweeps import sweep
from scorefield.cli.trainings import demo, train

# Typer imports pydantic, a fifth of a second, for each option without a value.
_FLAGS = dict.fromkeys(
    ("help", "quiet", "json", "version", "install_completion", "show_completion"), False
)

app = typer.Typer(
    name="scorefield",
    help="Train, sample and evaluate score models as vector fields.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"default_map": {**_FLAGS, "presets": _FLAGS}},
)

_SHARED = ("train", "sample", "eval", "likelihood")


def _print_version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        print(f"scorefield {version('scorefield')}")
        raise typer.Exit
    return wanted


@app.callback()
def scorefield(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train, sample and evaluate score models as vector fields."""
    processes, verb = int(os.environ.get("WORLD_SIZE", "1")), context.invoked_subcommand
    if processes > 1 and verb not in _SHARED:
        from scorefield.errors import UserError

        raise UserError(
            f"{verb} runs in one process, and there are {processes}: only {', '.join(_SHARED)} "
            "share out their work"
        )


app.add_typer(analyze, name="analyze")
app.add_typer(data, name="data")
for verb in (demo, train, sample):
    app.command()(verb)
app.command("eval")(evaluate)
for verb in (likelihood, check, sweep, runs, report, inspect):
    app.command()(verb)
# Typer imports pydantic for an argument that may be missing.
app.command(context_settings={"allow_extra_args": True}, options_metavar="[PATTERN]...")(presets)
for verb in (ema, export):
    app.command()(verb)
