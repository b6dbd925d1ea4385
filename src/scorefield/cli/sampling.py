"""The verb that samples a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scorefield.cli.options import (
    ROOT,
    Chosen,
    Model,
    Overwrite,
    Root,
    Seed,
    Step,
    TrustCode,
    Vae,
    Weights,
    on_engine,
)
from scorefield.cli.results import Results, ending_in_results


@ending_in_results
@on_engine
def sample(
    engine: Chosen,
    model: Model,
    n: Annotated[int, typer.Option("--n", help="The number of samples.")] = 64,
    sampler: Annotated[
        str | None,
        typer.Option(help="The method, as in sampler.kind; the run's by default."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="The number of steps.")] = None,
    nfe: Annotated[
        int | None,
        typer.Option(help="The largest number of network calls per sample, instead of steps."),
    ] = None,
    seed: Seed = 0,
    churn: Annotated[float | None, typer.Option(help="The amount of churn.")] = None,
    label: Annotated[
        str | None, typer.Option(help="The class of the samples: its name, or its number from 0.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale w; 1 is no guidance.")
    ] = None,
    weights: Weights = "ema",
    step: Step = None,
    out: Annotated[
        Path | None, typer.Option(help="The file of the samples, .npz or .safetensors.")
    ] = None,
    vae: Vae = None,
    root: Root = ROOT,
    overwrite: Overwrite = False,
    trust_code: TrustCode = False,
) -> Results:
    """Sample a model, and write the samples and a picture of them."""
    from scorefield.evaluation.sampling import choose_sampler, draw, following
    from scorefield.progress import Stages
    from scorefield.runs.classes import class_name, class_number
    from scorefield.runs.find import find_run
    from scorefield.runs.subject import open_model

    place = find_run(model, root)
    opened = open_model(place, weights, trust_code=trust_code, step=step)
    method = choose_sampler(opened.config, sampler, steps, nfe, churn)
    number = None if label is None else class_number(label, opened.source)
    with opened.engine(**engine).joined() as chosen, Stages() as stages:
        drawn = draw(
            opened, n, method, seed, out, overwrite, following(stages), number, guidance, chosen,
            vae,
        )  # fmt: skip
    of_class = None if number is None else str(class_name(number, opened.source))
    calls = drawn.calls
    row = {
        "samples": n,
        "class": of_class,
        "sampler": type(method).__name__.lower(),
        "network calls each": calls.mean,
        "fewest": calls.least,
        "most": calls.most,
        "seconds": drawn.seconds,
    }
    files = [file for file in (drawn.file, drawn.picture) if file is not None]
    return Results(about={"model": str(place), "seed": seed}, rows=[row], files=files)
