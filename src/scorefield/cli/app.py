"""The verbs of the command line, one a function.

Libraries are imported inside the verbs, so that help and the list of presets answer at once.
"""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

import typer

from scorefield.cli.analyses import analyze
from scorefield.cli.arguments import (
    MODEL,
    Chosen,
    Integers,
    Numbers,
    counts,
    on_engine,
    positive_numbers,
)
from scorefield.cli.averages import ema
from scorefield.cli.checks import check
from scorefield.cli.datasets import data
from scorefield.cli.exports import export
from scorefield.cli.sweeps import drawing_of, status, sweep
from scorefield.studies.settings import LAST_SEED

app = typer.Typer(
    name="scorefield",
    help="Train, sample and evaluate score models as vector fields.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    # Typer imports pydantic, a fifth of a second, for each option without a value.
    context_settings={"default_map": {"help": False, "presets": {"help": False}}},
)

_SHARED = ("train", "sample", "eval", "likelihood")

app.add_typer(analyze, name="analyze")
app.add_typer(data, name="data")

Root = Annotated[Path, typer.Option(help="The folder of all runs.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[A.B=C]...", help="Overrides, as in optim.lr=1e-3.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
ModelName = Annotated[str, MODEL]
Weights = Annotated[
    Literal["ema", "raw"],
    typer.Option(help="Averaged weights (ema) or those of the last step (raw)."),
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Import custom classes that the run names.")
]


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


@app.command()
@on_engine
def demo(
    engine: Chosen,
    out: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("reports/demo"),
    root: Root = Path("runs/demo"),
    jobs: Annotated[int, typer.Option(min=1, help="The number of parallel processes.")] = 2,
) -> None:
    """Train and evaluate five models on two data sets, and write the report."""
    from scorefield.comparison.demo import demo
    from scorefield.report.page import write_report

    demo(root, jobs=jobs, engine=engine)
    print(write_report(root, out))


@app.command()
@on_engine
def train(
    engine: Chosen,
    preset: Annotated[
        str, typer.Argument(metavar="PRESET", help="A preset, or a file ending in .yaml.")
    ],
    overrides: Overrides = None,
    root: Root = Path("runs"),
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
) -> None:
    """Train a preset or a configuration file, or resume its run."""
    from scorefield.config.resolve import load_config

    config = load_config(preset, overrides or ())
    from scorefield.config.build import build_engine
    from scorefield.runs.run import Run

    chosen = build_engine(config, **engine)
    if dry_run:
        from scorefield.config.document import dump

        Run.check(config)
        print(f"# {root / config.folder}\n{dump(config.document())}", end="")
        return
    chosen.check()
    if smoke:
        from scorefield.evaluation.smoke import smoke as try_out

        tried = try_out(config, root, chosen, lambda clause: print(clause, flush=True))
        print(*(f"{name}: {value}" for name, value in tried.numbers.items()), sep="\n")
        print(tried.folder)
        return
    # What torchrun starts again goes on with what it has done.
    overwrite = overwrite and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    with chosen.joined() as chosen:
        run = Run.create(config, root, overwrite, chosen.world)
        if chosen.world.broadcast(lambda: run.finished):
            print(f"{run.folder} is complete: {config.train.steps} steps")
            return
        print(f"training {config.name} in {run.folder}", flush=True)
        fit = run.train(draw=drawing_of, engine=chosen)
        print(f"{run.folder} is complete: {config.train.steps} steps, {fit.seconds:.1f} s")


@app.command()
@on_engine
def sample(
    engine: Chosen,
    model: ModelName,
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
    seed: Annotated[
        int, typer.Option(min=0, max=LAST_SEED, help="The seed of the starting noise.")
    ] = 0,
    churn: Annotated[float | None, typer.Option(help="The amount of churn.")] = None,
    label: Annotated[
        str | None, typer.Option(help="The class of the samples: its name, or its number from 0.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale w; 1 is no guidance.")
    ] = None,
    weights: Weights = "ema",
    step: Annotated[
        int | None, typer.Option(help="The step of the checkpoint; the newest by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file of the samples, .npz or .safetensors.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    trust_code: TrustCode = False,
) -> None:
    """Sample a model, and write the samples and a picture of them."""
    from scorefield.evaluation.sampling import choose_sampler, draw, following
    from scorefield.progress import Stages
    from scorefield.runs.classes import class_name, class_number
    from scorefield.runs.subject import open_model

    opened = open_model(model, weights, trust_code=trust_code, step=step)
    method = choose_sampler(opened.config, sampler, steps, nfe, churn)
    number = None if label is None else class_number(label, opened.source)
    with opened.engine(**engine).joined() as chosen, Stages() as stages:
        drawn = draw(
            opened, n, method, seed, out, overwrite, following(stages), number, guidance, chosen
        )
    shown = "" if number is None else f" of class {class_name(number, opened.source)}"
    print(f"{n} samples{shown} in {drawn.seconds:.2f} s, {drawn.calls}")
    print(*filter(None, (drawn.file, drawn.picture)), sep="\n")


@app.command("eval")
@on_engine
def evaluate_run(
    engine: Chosen,
    run: RunFolder,
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing evaluation.")
    ] = False,
    extractor: Annotated[
        list[Path] | None,
        typer.Option(help="Weights of Inception or DINOv2, for FID and others; may be repeated."),
    ] = None,
    images: Annotated[
        int, typer.Option(min=40, help="The number of images for metrics of an extractor.")
    ] = 50_000,
    statistics: Annotated[
        Path | None, typer.Option(help="Published statistics, .npz, to take the FID from.")
    ] = None,
    png: Annotated[
        bool, typer.Option("--png", help="Write the images of an extractor's metrics as PNG files.")
    ] = False,
    trust_code: TrustCode = False,
) -> None:
    """Evaluate a run: sample quality, curl and score error by noise level.

    An existing evaluation is extended by the numbers of network calls that it lacks. Samples
    are drawn by Heun's method, the sampler of the evaluation protocol, and with --sampler by
    another one too, at the same numbers of calls. With an extractor, images at the largest number
    of calls, or those of --nfe, are compared with the training set by its features.
    """
    from scorefield.cli.printing import print_images, print_methods
    from scorefield.config.build import build_engine
    from scorefield.errors import UserError
    from scorefield.evaluation.evaluate import evaluate
    from scorefield.evaluation.extractors import open_extractor
    from scorefield.evaluation.images import evaluate_images
    from scorefield.evaluation.methods import evaluate_sampler
    from scorefield.evaluation.reference import read_statistics
    from scorefield.evaluation.sampling import choose_sampler
    from scorefield.progress import Stages
    from scorefield.runs.run import Run

    if not extractor and (statistics or png):
        raise UserError("--statistics and --png are of the metrics of an --extractor: give one")
    opened, found, compared = Run.open(run, trust_code), None, None
    method = None
    if sampler is not None or churn is not None:
        kind = None if sampler == "own" else sampler or "heun"
        method = choose_sampler(opened.config, kind, churn=churn)
        for budget in nfe or opened.config.eval.nfes:
            method.at_budget(budget)
    # What is wrong with a file is said before anything is measured.
    networks = [open_extractor(path) for path in extractor or ()]
    for network in networks:
        if statistics is not None:
            read_statistics(statistics, network)
    with build_engine(opened.config, **engine).joined() as chosen, Stages() as stages:
        evaluate(opened, nfe, overwrite=overwrite, stages=stages, engine=chosen)
        if method is not None:
            compared = evaluate_sampler(opened, method, nfe, stages=stages, engine=chosen)
        if networks:
            found = evaluate_images(
                opened,
                networks,
                images,
                nfe,
                statistics=statistics,
                pngs=png,
                stages=stages,
                engine=chosen,
            )
    if compared is not None and chosen.world.first:
        print_methods(compared)
    if found is not None and chosen.world.first:
        print_images(found)
    for file in sorted((run / "eval").iterdir()) if chosen.world.first else ():
        print(file)


@app.command()
@on_engine
def likelihood(
    engine: Chosen,
    model: ModelName,
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
    seed: Annotated[
        int, typer.Option(min=0, max=LAST_SEED, help="The seed of points and probes.")
    ] = 0,
    weights: Weights = "ema",
    out: Annotated[Path | None, typer.Option(help="The folder of the tables.")] = None,
    trust_code: TrustCode = False,
) -> None:
    """Compute log-densities of data under a model, with errors, in nats and bits per dimension."""
    from scorefield.evaluation.likelihood import (
        LikelihoodSettings,
        check_folder,
        data_likelihood,
    )
    from scorefield.runs.subject import open_subject

    subject = open_subject(model, weights, config, trust_code=trust_code)
    folder = out or (subject.folder / "eval" if subject.folder else None)
    if folder is not None:
        check_folder(folder)
    settings = LikelihoodSettings(rtol, atol, probes, n_probes, standard_error, seed)
    with subject.engine(**engine).joined() as chosen:
        found = data_likelihood(subject, data, n, settings, chosen, subject.folder or folder)
    print(*found.lines(), sep="\n")
    if folder is not None and chosen.world.first:
        print(*found.write(folder), sep="\n")


@app.command()
def report(
    root: Annotated[Path, typer.Argument(help="The folder of all runs.")] = Path("runs"),
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
    trust_code: TrustCode = False,
) -> None:
    """Compare the evaluations of all runs in tables and a page."""
    from scorefield.report.page import write_report

    print(write_report(root, out, targets, strict, trust_code))


@app.command()
def inspect(
    model: ModelName,
    trust_code: TrustCode = False,
) -> None:
    """Describe a run, a checkpoint or any other model, and check it."""
    from scorefield.cli.printing import print_sheet
    from scorefield.runs.inspection import inspect

    print_sheet(inspect(model, trust_code))


# Typer imports pydantic for an argument that may be missing.
@app.command(context_settings={"allow_extra_args": True}, options_metavar="[PATTERN]...")
def presets(context: typer.Context) -> None:
    """List every preset; of those that match patterns such as 'cifar10/*', show size and cost.

    Multiply-adds are those of one evaluation of the field, and of a training step for each point of
    the batch without regularisers; memory is that of weights, gradient, moments and averages.
    """
    from scorefield.config import presets

    if context.args:
        from scorefield.cli.printing import print_table
        from scorefield.runs.cost import COLUMNS, row_of

        chosen = [name for pattern in context.args for name in presets.matching(pattern)]
        print_table(COLUMNS, [row_of(name) for name in chosen])
        return
    names = presets.names()
    width = max(map(len, names))
    for family, members in groupby(names, lambda name: name.partition("/")[0]):
        print(family)
        for name in members:
            print(f"  {name:<{width}}  {presets.description(name)}")


for verb in (check, sweep, status, ema, export):
    app.command()(verb)
