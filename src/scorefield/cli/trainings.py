"""The verbs that train: one configuration, or the five models of the demonstration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from scorefield.cli.options import ROOT, Chosen, Jobs, Root, complete_presets, on_engine
from scorefield.cli.results import Results, ending_in_results

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[A.B=C]...", help="Overrides, as in optim.lr=1e-3.")
]


@ending_in_results
@on_engine
def demo(
    engine: Chosen,
    out: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("reports/demo"),
    root: Root = Path("runs/demo"),
    jobs: Jobs = 2,
) -> Results:
    """Train and evaluate five models on two data sets, and write the report.

    The same command, run again, resumes, and writes the report anew.
    """
    from scorefield.comparison.demo import demo
    from scorefield.files import check_writable
    from scorefield.report.page import write_report

    check_writable(out)
    demo(root, jobs=jobs, engine=engine)
    return Results(files=[write_report(root, out, overwrite=True)])


@ending_in_results
@on_engine
def train(
    engine: Chosen,
    preset: Annotated[
        str,
        typer.Argument(
            metavar="PRESET",
            help="A preset, or a file ending in .yaml.",
            autocompletion=complete_presets,
        ),
    ],
    overrides: Overrides = None,
    root: Root = ROOT,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an existing run and start again.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the configuration and the folder, and exit.")
    ] = False,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke", help="Train, sample and evaluate a small version on random data, in seconds."
        ),
    ] = False,
) -> Results:
    """Train a preset or a configuration file, or resume its run."""
    from scorefield.config.resolve import load_config

    config = load_config(preset, overrides or ())
    from scorefield.comparison.sweep import drawing_of
    from scorefield.config.build import build_engine
    from scorefield.runs.run import Run

    chosen = build_engine(config, **engine)
    if dry_run:
        from scorefield.config.document import dump

        Run.check(config)
        document = config.document()
        text = f"# {root / config.folder}\n{dump(document)}".rstrip("\n")
        about: dict[str, Any] = {"folder": str(root / config.folder), "configuration": document}
        return Results(about=about, text=text)
    chosen.check()
    if smoke:
        from scorefield.evaluation.smoke import smoke as try_out

        tried = try_out(config, root, chosen, lambda clause: print(clause, flush=True))
        rows = [{"quantity": name, "value": value} for name, value in tried.numbers.items()]
        return Results(rows=rows, files=[tried.folder])
    # What torchrun starts again goes on with what it has done.
    overwrite = overwrite and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    with chosen.joined() as chosen:
        run = Run.create(config, root, overwrite, chosen.world)
        done = chosen.world.broadcast(lambda: run.finished)
        seconds = None
        if not done:
            print(f"training {config.name} in {run.folder}", flush=True)
            seconds = run.train(draw=drawing_of, engine=chosen).seconds
    took = "" if seconds is None else f", {seconds:.1f} s"
    steps = config.train.steps
    about = {"run": str(run.folder), "steps": steps, "seconds": seconds}
    return Results(about=about, text=f"{run.folder} is complete: {steps} steps{took}")
