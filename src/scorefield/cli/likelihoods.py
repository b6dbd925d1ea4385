"""The verb that computes log-densities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from scorefield.cli.options import (
    ROOT,
    Chosen,
    Model,
    Overwrite,
    Root,
    Seed,
    TrustCode,
    Weights,
    on_engine,
)
from scorefield.cli.results import Results, ending_in_results


@ending_in_results
@on_engine
def likelihood(
    engine: Chosen,
    model: Model,
    config: Annotated[
        str | None,
        typer.Option(help="The configuration of a foreign file: a name or a file."),
    ] = None,
    data: Annotated[
        str, typer.Option(help="The data: test, train, a preset, images, or a file.")
    ] = "test",
    n: Annotated[int | None, typer.Option("--n", help="The number of points.")] = None,
    rtol: Annotated[float, typer.Option(help="The relative tolerance of the solver.")] = 1e-5,
    atol: Annotated[float, typer.Option(help="The absolute tolerance of the solver.")] = 1e-5,
    probes: Annotated[
        Literal["rademacher", "gaussian", "variance_reduced"],
        typer.Option(help="The kind of random probes, if the trace is not exact."),
    ] = "rademacher",
    n_probes: Annotated[int, typer.Option(help="The number of probes.")] = 8,
    standard_error: Annotated[
        float | None,
        typer.Option(help="Add probes until every standard error is this small, in nats."),
    ] = None,
    seed: Seed = 0,
    weights: Weights = "ema",
    out: Annotated[Path | None, typer.Option(help="The folder of the tables.")] = None,
    root: Root = ROOT,
    overwrite: Overwrite = False,
    trust_code: TrustCode = False,
) -> Results:
    """Compute log-densities of data under a model, with errors, in nats and bits per dimension."""
    from scorefield.comparison.marks import explained, mark_of
    from scorefield.evaluation.likelihood import (
        LikelihoodSettings,
        check_folder,
        data_likelihood,
    )
    from scorefield.report.likelihood import compared_with_first
    from scorefield.runs.cells import Marked
    from scorefield.runs.find import find_run
    from scorefield.runs.subject import open_subject

    place = find_run(model, root)
    subject = open_subject(place, weights, config, trust_code=trust_code)
    folder = out or (subject.folder / "eval" if subject.folder else None)
    if folder is not None:
        check_folder(folder, overwrite)
    settings = LikelihoodSettings(rtol, atol, probes, n_probes, standard_error, seed)
    with subject.engine(**engine).joined() as chosen:
        found = data_likelihood(subject, data, n, settings, chosen, subject.folder or folder)
        files, pair = [], None
        if folder is not None and chosen.world.first:
            files = found.write(folder)
            if out is None and subject.folder is not None:
                pair = compared_with_first(subject.folder)
    about = {"model": str(place), "data": data, "seed": seed}
    mark = mark_of(None if pair is None else pair.difference).words
    rows = [{**row, "value": Marked(row["value"], mark)} for row in found.rows()]
    notes = [*found.notes(), *([] if pair is None else [explained(pair.baseline.label)])]
    return Results(about=about, rows=rows, notes=notes, files=files)
