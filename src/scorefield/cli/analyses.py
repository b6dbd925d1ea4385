"""The verbs of ``scorefield analyze``, a study each: its settings are its options."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from scorefield.cli.arguments import Integers, integers
from scorefield.cli.options import DEVICE, ROOT, Overwrite, Root
from scorefield.cli.results import Results, ending_in_results
from scorefield.errors import ConfigError, hint
from scorefield.studies import settings as studies

analyze = typer.Typer(help="Analyse fields and data sets.", rich_markup_mode=None)


def _add(module: str, settings: type[studies.Settings], help: str) -> None:
    """Adds the verb of a study, whose class is ``STUDY`` in a module of its own."""

    def verb(device: str = "cpu", root: Path = ROOT, **values: Any) -> Results:
        from scorefield.progress import Stages

        out, overwrite = values.pop("out"), values.pop("overwrite")
        for name in named:
            from scorefield.runs.find import find_run

            values[name] = [find_run(str(run), root) for run in values[name] or ()]
        read = {name: _read(name, value, hints[name]) for name, value in values.items()}
        chosen = settings(**read)
        from scorefield.engine import Engine
        from scorefield.studies.frame import run

        study = import_module(f"scorefield.studies.{module}.study").STUDY
        with Stages() as stages:
            written = run(study, chosen, out, overwrite, stages, Engine(device))
        headings, lines, notes = written.table
        rows = [dict(zip(headings, line, strict=True)) for line in lines]
        return Results(rows=rows, notes=notes, files=written.files, failure=written.failure)

    hints = get_type_hints(settings)
    named = [name for name, option in settings.options().items() if option.metavar]
    parameters = [
        _parameter(name, hints[name], getattr(settings, name, ...), option)
        for name, option in settings.options().items()
    ]
    folder = typer.Option(help="The folder of all results.")
    keyword: Any = inspect.Parameter.KEYWORD_ONLY
    parameters += [
        inspect.Parameter(
            "out", keyword, default=Path(settings.out), annotation=Annotated[Path, folder]
        ),
        inspect.Parameter("overwrite", keyword, default=False, annotation=Overwrite),
    ]
    if named:
        parameters.append(inspect.Parameter("root", keyword, default=ROOT, annotation=Root))
    if settings.on_device:
        kind = Annotated[str, DEVICE]
        parameters.append(inspect.Parameter("device", keyword, default="auto", annotation=kind))
    verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    analyze.command(module, help=help)(ending_in_results(verb))


def _parameter(name: str, kind: Any, default: Any, option: studies.Option) -> inspect.Parameter:
    """The option or argument of a setting; lists are given as text."""
    flag = f"--{name.replace('_', '-')}"
    annotation: Any
    if option.metavar:
        annotation = Annotated[
            list[get_args(kind)[0]] | None,  # type: ignore[misc]
            typer.Argument(metavar=option.metavar, help=option.help),
        ]
        default = None
    elif get_origin(kind) is tuple and get_args(kind)[0] is int:
        listed: Any = {"parser": integers, "metavar": "N,N..."}
        annotation = Annotated[Integers | None, typer.Option(flag, help=option.help, **listed)]
        default = Integers(default) if default else None
    elif get_origin(kind) is tuple:
        annotation = Annotated[str | None, typer.Option(flag, help=option.help)]
        default = ",".join(map(str, default)) or None
    else:
        ends = {"min": option.least, "max": option.most}
        given: Any = {key: end for key, end in ends.items() if end is not None}
        annotation = Annotated[kind, typer.Option(flag, help=option.help, **given)]
    default = inspect.Parameter.empty if default is ... else default
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _read(name: str, value: Any, kind: Any) -> Any:
    """The value of a setting from that of its option.

    Raises:
        ConfigError: If a list has a wrong element, or one twice.
    """
    if get_origin(kind) is not tuple or isinstance(value, (list, tuple)):
        return tuple(value) if isinstance(value, (list, tuple)) else value
    option, element = f"--{name.replace('_', '-')}", get_args(kind)[0]
    if value is None:
        return ()
    if get_origin(element) is not Literal:  # names with commas, which the study knows
        return tuple(part.strip() for part in value.split(";"))
    return _names(option, value, get_args(element))


def _names(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a list such as ``els,is``, in the order in which all are known; none of
    ``none``.
    """
    names = [] if text.strip() == "none" else [name.strip() for name in text.split(",")]
    for place, name in enumerate(names):
        if name not in known:
            raise ConfigError(f"{option} has {name!r}; {hint(name, known, 'all')}")
        if name in names[:place]:
            raise ConfigError(f"{option} has {name} twice")
    return tuple(name for name in known if name in names)


_add(
    "calibrate",
    studies.Calibration,
    "Evaluate every diagnostic on fields with known values: false alarms, coverage, power.",
)
_add(
    "coverage",
    studies.Coverage,
    "Measure how often every interval, at default settings, contains the true value.",
)
_add(
    "dose",
    studies.Dose,
    "Plant errors with and without curl in an exact field: the loss in samples and likelihood.",
)
_add(
    "patches",
    studies.Patches,
    "Find the patch sizes at which a local score is most similar to a network, and compare them.",
)
_add(
    "exterior",
    studies.Exterior,
    "Measure how far networks and closed forms are from gradients, from noise to images.",
)
_add(
    "atoms",
    studies.Atoms,
    "Compare models of pseudo-atoms with the exact distribution: samples, fields, and a film.",
)
