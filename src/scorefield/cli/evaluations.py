"""The verb that evaluates a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scorefield.cli.arguments import Integers, counts
from scorefield.cli.options import (
    ROOT,
    Chosen,
    Overwrite,
    Root,
    RunName,
    TrustCode,
    Vae,
    on_engine,
)
from scorefield.cli.results import Results, ending_in_results
from scorefield.errors import UserError


@ending_in_results
@on_engine
def evaluate(
    engine: Chosen,
    run: RunName,
    nfe: Annotated[
        Integers | None,
        typer.Option(
            parser=counts, metavar="N,N...", help="Numbers of network calls, as in 8,18,32."
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="Another method to compare, as in sampler.kind; own for the run's."),
    ] = None,
    churn: Annotated[
        float | None, typer.Option(help="The noise that the other method adds, of heun and euler.")
    ] = None,
    extractor: Annotated[
        list[Path] | None,
        typer.Option(help="Weights of Inception or DINOv2, for FID and others; may be repeated."),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", min=40, help="The number of images for metrics of an extractor.")
    ] = 50_000,
    statistics: Annotated[
        Path | None, typer.Option(help="Published statistics, .npz, to take the FID from.")
    ] = None,
    png: Annotated[
        bool, typer.Option("--png", help="Write the images of an extractor's metrics as PNG files.")
    ] = False,
    vae: Vae = None,
    root: Root = ROOT,
    overwrite: Overwrite = False,
    trust_code: TrustCode = False,
) -> Results:
    """Evaluate a run: sample quality, curl and score error by noise level.

    An existing evaluation is extended by the numbers of network calls that it lacks. Samples
    are drawn by Heun's method, the sampler of the evaluation protocol, and with --sampler by
    another one too, at the same numbers of calls. With an extractor, images at the largest number
    of calls, or those of --nfe, are compared with the training set by its features.
    """
    from scorefield.comparison.marks import compared_with_first
    from scorefield.comparison.overview import notes, overview
    from scorefield.config.build import build_engine
    from scorefield.evaluation.evaluate import evaluate as measure
    from scorefield.evaluation.extractors import open_extractor
    from scorefield.evaluation.images import evaluate_images, images_of
    from scorefield.evaluation.methods import evaluate_sampler
    from scorefield.evaluation.reference import read_statistics
    from scorefield.evaluation.sampling import choose_sampler
    from scorefield.progress import Stages
    from scorefield.runs.find import find_run
    from scorefield.runs.run import Run

    if not extractor and (statistics or png or vae):
        raise UserError(
            "--statistics, --png and --vae are of the metrics of an --extractor: give one"
        )
    opened, method = Run.open(find_run(run, root), trust_code), None
    if sampler is not None or churn is not None:
        kind = None if sampler == "own" else sampler or "heun"
        method = choose_sampler(opened.config, kind, churn=churn)
        for budget in nfe or opened.config.eval.nfes:
            method.at_budget(budget)
    # What is wrong with a file is said before anything is measured.
    networks = [open_extractor(path) for path in extractor or ()]
    images = images_of(opened, vae) if networks else None
    for network in networks:
        if statistics is not None:
            read_statistics(statistics, network)
    with build_engine(opened.config, **engine).joined() as chosen, Stages() as stages:
        found = measure(opened, nfe, overwrite=overwrite, stages=stages, engine=chosen)
        if method is not None:
            found = evaluate_sampler(opened, method, nfe, stages=stages, engine=chosen)
        if networks:
            found = evaluate_images(
                opened, networks, n, nfe,
                statistics=statistics, pngs=png, opened=images, stages=stages, engine=chosen,
            )  # fmt: skip
        files, pairs = [], []
        if chosen.world.first:
            files = sorted((opened.folder / "eval").iterdir())
            pairs = compared_with_first(found)
    about = {"run": str(opened.folder), "step": found.step, "seed": found.seed}
    rows = overview(found, pairs)
    return Results(about=about, rows=rows, notes=notes(found, pairs), files=files)
