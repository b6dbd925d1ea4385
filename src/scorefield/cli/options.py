"""The vocabulary of options: one name for one thing, in all verbs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from scorefield.studies.settings import LAST_SEED

Chosen = dict[str, Any]
"""The values of an engine that are given in place of a configuration's."""

ROOT = Path("runs")
"""The folder of all runs."""

DEVICE = typer.Option(help="The device: auto, cpu, cuda or cuda:N.")
"""The option of the device."""


def complete_runs(context: typer.Context, incomplete: str) -> list[str]:
    """The models below the folder of all runs, by their names, which find their runs."""
    root = Path(context.params.get("root") or ROOT)
    found = {"/".join(folder.parts[-3:-1]) for folder in root.glob("*/*/seed*")}
    return sorted(name for name in found if name.startswith(incomplete))


def complete_presets(incomplete: str) -> list[str]:
    """The names of presets."""
    from scorefield.config import presets

    return [name for name in presets.names() if name.startswith(incomplete)]


QUIET = Annotated[bool, typer.Option("--quiet", help="Print results only, and no progress.")]
JSON = Annotated[
    bool,
    typer.Option(
        "--json", help="Print results as one JSON document; progress goes to the standard error."
    ),
]
Root = Annotated[Path, typer.Option(help="The folder of all runs.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Jobs = Annotated[int, typer.Option(min=1, help="The number of parallel processes.")]
Seed = Annotated[
    int, typer.Option(min=0, max=LAST_SEED, help="The seed of all random numbers of the command.")
]
Step = Annotated[
    int | None, typer.Option(help="The step of the checkpoint; the newest by default.")
]
Vae = Annotated[
    Path | None,
    typer.Option(help="The autoencoder of latents, where it is no longer in its place."),
]
Weights = Annotated[
    Literal["ema", "raw"],
    typer.Option(help="Averaged weights (ema) or those of the last step (raw)."),
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Import custom classes that the run names.")
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run, by its folder, its preset or a part of its path; a checkpoint, saved field, "
        "folder of diffusers, hub:owner/name, or package.module:factory.",
        autocompletion=complete_runs,
    ),
]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run: its folder, its preset, or a part of its path.",
        autocompletion=complete_runs,
    ),
]

_ENGINE = {
    "device": Annotated[str | None, DEVICE],
    "precision": Annotated[
        Literal["float32", "tf32", "bfloat16", "float16"] | None,
        typer.Option(help="The precision of training and sampling; all else is exact."),
    ],
    "compile": Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Whether networks are compiled.")
    ],
}
"""The options of the engine, in place of what a configuration says."""


def on_engine(verb: Callable[..., Any]) -> Callable[..., Any]:
    """A verb with the options of the engine; it takes those that are given as one mapping,
    ``engine``.
    """

    @wraps(verb)
    def call(**given: Any) -> Any:
        chosen = {name: given.pop(name) for name in _ENGINE}
        engine = {name: value for name, value in chosen.items() if value is not None}
        return verb(**given, engine=engine)

    return extended(call, verb, _ENGINE, None, without="engine")


def extended(
    call: Callable[..., Any],
    verb: Callable[..., Any],
    options: Mapping[str, Any],
    default: Any = False,
    without: str = "",
) -> Callable[..., Any]:
    """A wrapper with the signature of a verb, more options, and without one of its arguments."""
    own = inspect.signature(verb, eval_str=True).parameters
    parameters = [parameter for name, parameter in own.items() if name != without] + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, kind in options.items()
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call
