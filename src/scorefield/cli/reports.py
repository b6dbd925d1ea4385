"""The verbs that show what is there: presets, runs, models, and the report of many runs."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from scorefield.cli.arguments import Numbers, positive_numbers
from scorefield.cli.options import ROOT, Model, Overwrite, Root, TrustCode
from scorefield.cli.results import Results, ending_in_results


@ending_in_results
def report(
    root: Root = ROOT,
    out: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("reports"),
    targets: Annotated[
        Numbers,
        typer.Option(
            parser=positive_numbers,
            metavar="X,X...",
            help="Targets of the sample quality, in multiples of the noise floor.",
        ),
    ] = Numbers((1.5, 2.0, 3.0, 5.0)),
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse numbers without an interval over seeds.")
    ] = False,
    overwrite: Overwrite = False,
    trust_code: TrustCode = False,
) -> Results:
    """Compare the evaluations of all runs in tables and a page."""
    from scorefield.report.page import write_report

    return Results(files=[write_report(root, out, targets, strict, trust_code, overwrite)])


@ending_in_results
def inspect(
    model: Model,
    root: Root = ROOT,
    trust_code: TrustCode = False,
) -> Results:
    """Describe a run, a checkpoint or any other model, and check it."""
    from scorefield.runs.find import find_run
    from scorefield.runs.inspection import inspect

    return Results(sheet=inspect(find_run(model, root), trust_code))


@ending_in_results
def runs(root: Root = ROOT) -> Results:
    """List all runs: how far each is, whether it is evaluated, its job on a cluster, its folder."""
    from scorefield.comparison.status import progress

    return Results(rows=progress(root))


@ending_in_results
def presets(context: typer.Context) -> Results:
    """List every preset; of those that match patterns such as 'cifar10/*', show size and cost.

    Multiply-adds are those of one evaluation of the field, and of a training step for each point of
    the batch without regularisers; memory is that of weights, gradient, moments and averages.
    """
    from scorefield.config import presets

    if context.args:
        from scorefield.runs.cost import COLUMNS, row_of

        chosen = [name for pattern in context.args for name in presets.matching(pattern)]
        return Results(rows=[dict(zip(COLUMNS, row_of(name), strict=True)) for name in chosen])
    rows = [{"preset": name, "description": presets.description(name)} for name in presets.names()]
    width = max(len(row["preset"]) for row in rows)
    lines = []
    for family, members in groupby(rows, lambda row: row["preset"].partition("/")[0]):
        lines.append(family)
        lines += [f"  {row['preset']:<{width}}  {row['description']}" for row in members]
    return Results(rows=rows, text="\n".join(lines))
