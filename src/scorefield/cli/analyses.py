"""The verbs of ``scorefield analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from scorefield.cli.arguments import Integers, integers

analyze = typer.Typer(help="Analyses of fields and data sets.", rich_markup_mode=None)


@analyze.command()
def calibrate(
    repeats: Annotated[int, typer.Option(min=20, help="Repetitions behind each coverage.")] = 100,
    dims: Annotated[
        Integers,
        typer.Option(parser=integers, metavar="N,N...", help="Dimensions, of 2, 64 and 784."),
    ] = Integers((2, 64, 784)),
    only: Annotated[
        str | None, typer.Option(help="Instruments, as in 'loops;path gap'; all by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the table.")] = Path(
        "results/calibration"
    ),
    jobs: Annotated[int, typer.Option(min=1, help="How many processes at the same time.")] = 2,
) -> None:
    """Calibrate the diagnostics on fields with known answers: false alarms, coverage, power."""
    from scorefield.cli.printing import print_table
    from scorefield.studies import calibrate as work

    names = work.named("--only", only)
    answers = work.calibrate(repeats, out, dims, names, jobs)
    print_table(work.COLUMNS, work.table(answers))
    print(out / work.TABLE, out / work.PICTURE, sep="\n")


@analyze.command()
def dose(
    out: Annotated[Path, typer.Option(help="The folder of the table and the figure.")] = Path(
        "results/dose"
    ),
    seed: Annotated[int, typer.Option(min=0, help="The seed of data and errors.")] = 0,
) -> None:
    """Plant errors with and without curl in an exact field, and measure samples and likelihood."""
    from scorefield.cli.printing import print_table
    from scorefield.progress import Stages
    from scorefield.studies.dose import Design, dose_response
    from scorefield.studies.dose_figure import TABLE, table, write

    design = Design(seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    with Stages() as stages:
        result = dose_response(design, stages)
    print_table(TABLE, table(result, design.slice_dose))
    for file in write(result, out):
        print(file)


@analyze.command()
def patches(
    dataset: Annotated[
        Literal["digits", "mnist", "fashion_mnist", "cifar10", "celeba"],
        typer.Option(help="The data set that the network was trained on."),
    ],
    network: Annotated[Path, typer.Option(help="The run, or a file of its weights.")],
    images: Annotated[
        int | None, typer.Option(min=2, help="Training images of the machines; 1500 by default.")
    ] = None,
    calibrate_on: Annotated[
        int | None, typer.Option(min=2, help="Of them, those that sizes are calibrated with.")
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Samples to calibrate on, and others.")] = 8,
    nsteps: Annotated[int, typer.Option(min=2, help="Steps from noise to images.")] = 20,
    sizes: Annotated[
        Integers | None,
        typer.Option(
            parser=integers,
            metavar="N,N...",
            help="Odd patch sizes, as in 3,5,7; up to 17 by default.",
        ),
    ] = None,
    by: Annotated[
        Literal["cosine", "l2"], typer.Option(help="What makes a size the best.")
    ] = "cosine",
    monotone: Annotated[
        bool, typer.Option("--monotone", help="Let sizes not fall with the noise level.")
    ] = False,
    machine: Annotated[
        Literal["els", "ls"], typer.Option(help="Patches from all places, or from the same one.")
    ] = "els",
    padding: Annotated[
        Literal["zeros", "circular", "valid"] | None,
        typer.Option(help="What the machine sees outside; what the network sees by default."),
    ] = None,
    label: Annotated[int | None, typer.Option(min=0, help="The class of all images.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the starting noise.")] = 0,
    data_path: Annotated[
        Path | None, typer.Option(help="Where the images lie; where the run says by default.")
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="The folder of tables and pictures.")] = Path(
        "results/patches"
    ),
) -> None:
    """Find the patch sizes at which a local machine is most like a network, and compare both."""
    from scorefield.cli.printing import print_table
    from scorefield.progress import Stages
    from scorefield.studies import patches as work
    from scorefield.studies.patches_files import TABLE, table, write

    bench = work.prepare(dataset, network, data_path, images, samples, label, nsteps, padding)
    plan = work.Plan(
        sizes or bench.sizes(),
        samples,
        by,
        "monotone" if monotone else "median",
        machine,
        padding or bench.padding,
        seed,
        calibrate_on,
    )
    output_dir.mkdir(parents=True, exist_ok=True)
    with Stages() as stages:
        found = work.study(bench, plan, stages)
    print_table(TABLE, table(found))
    for file in write(found, output_dir):
        print(file)


@analyze.command()
def exterior(
    dataset: Annotated[
        Literal["digits", "mnist", "fashion_mnist", "cifar10", "celeba"],
        typer.Option(help="The data set of networks and machines."),
    ],
    single: Annotated[bool, typer.Option("--single", help="Follow one starting noise.")] = False,
    multiple: Annotated[
        int | None, typer.Option(min=2, help="Follow so many, for error bars.")
    ] = None,
    nsteps: Annotated[int, typer.Option(min=1, help="Steps from noise to images.")] = 20,
    unet: Annotated[
        Path | None, typer.Option(help="A trained U-Net: its run, or a file of its weights.")
    ] = None,
    resnet: Annotated[Path | None, typer.Option(help="A trained ResNet, likewise.")] = None,
    machines: Annotated[
        str, typer.Option(help="Closed forms, of els, ls and is; or none.")
    ] = "els,ls,is",
    scales: Annotated[
        Path | None, typer.Option(help="Patch sizes by noise level, as analyze patches writes.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="In place of scales, one patch size; 3 by default.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Training images of the machines; 1500 by default.")
    ] = None,
    padding: Annotated[
        Literal["zeros", "circular"] | None,
        typer.Option(help="What local machines see outside; what networks see by default."),
    ] = None,
    units: Annotated[
        Literal["score", "noise", "denoiser"], typer.Option(help="What is differentiated.")
    ] = "score",
    points: Annotated[
        str, typer.Option(help="Where, of trajectory, noise and data.")
    ] = "trajectory,noise",
    exact: Annotated[
        bool, typer.Option("--exact", help="Exact Jacobians of networks too.")
    ] = False,
    precision: Annotated[
        float | None,
        typer.Option(help="The relative error at which probes of networks stop; 0.01 by default."),
    ] = None,
    label: Annotated[int | None, typer.Option(min=0, help="The class of all images.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of starting noise and probes.")] = 0,
    data_path: Annotated[
        Path | None, typer.Option(help="Where the images lie; where the run says by default.")
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="The folder of all results.")] = Path(
        "results/exterior_derivative"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Measure how far networks and closed forms are from gradients, from noise to images."""
    from scorefield.cli.printing import print_table
    from scorefield.progress import Stages
    from scorefield.studies import exterior_study as work
    from scorefield.studies.exterior import Terms

    request = work.Request(
        dataset,
        Terms(
            work.starts(single, multiple),
            seed,
            units,
            work.kinds_of_points(points),
            work.precision(exact, precision),
        ),
        nsteps,
        {"unet": unet, "resnet": resnet},
        work.named("--machines", machines, ("els", "ls", "is")),
        size,
        scales,
        images,
        padding,
        label,
        data_path,
    )
    folder = work.target_folder(request, output_dir, overwrite)
    with Stages() as stages:
        analysis, files = work.run(request, folder, overwrite, stages)
    print_table(work.TABLE, work.table(analysis))
    print(*files, sep="\n")


@analyze.command()
def atoms(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN...", help="Folders of runs on atoms.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="The exact field as one more model, which needs no run.")
    ] = False,
    samples: Annotated[int, typer.Option(min=2, help="Samples of each model.")] = 10_000,
    levels: Annotated[int, typer.Option(min=1, help="Noise levels of the diagnostics.")] = 9,
    points: Annotated[int, typer.Option(min=2, help="Noisy points at each level.")] = 512,
    frames: Annotated[int, typer.Option(help="Noise levels of the film.")] = 41,
    sampler: Annotated[
        Literal["euler", "heun", "predictor_corrector", "ddim", "dpm_solver"] | None,
        typer.Option(help="The method; the runs' by default."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="The number of its steps.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of starting noise and points.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder of all results.")] = Path("results/atoms"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Compare models of pseudo-atoms with the exact distribution: samples, fields, and a film."""
    from scorefield.cli.printing import print_table
    from scorefield.progress import Stages
    from scorefield.studies import atoms_study as work
    from scorefield.studies.atoms import Terms
    from scorefield.studies.atoms_files import headings, table

    terms = Terms(samples, levels, points, seed=seed)
    request = work.Request(tuple(runs or ()), exact, terms, frames, sampler, steps)
    with Stages() as stages:
        outcome = work.run(request, out, overwrite, stages)
    print_table(headings(outcome.analysis), table(outcome.analysis))
    print(*outcome.files, sep="\n", flush=True)
    outcome.check()
