"""The verb that checks a model."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from scorefield.cli.arguments import MODEL, Chosen, on_engine
from scorefield.errors import UserError
from scorefield.progress import SECONDS
from scorefield.studies.settings import LAST_SEED

_UNITS = {"": 1.0, **SECONDS}


def _seconds(text: str) -> float:
    """A time, as in ``90``, ``90s``, ``10min`` or ``1h``; Typer parses defaults too."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", str(text))
    if found is None or found[2] not in _UNITS or float(found[1]) <= 0:
        raise UserError(f"a time is written as in 90s, 10min or 1h, not {text!r}")
    return float(found[1]) * _UNITS[found[2]]


@on_engine
def check(
    engine: Chosen,
    model: Annotated[str, MODEL],
    data: Annotated[
        str | None,
        typer.Option(
            help="A preset, a set of images, or an .npy or .npz file; the model's own by default."
        ),
    ] = None,
    budget: Annotated[
        Any,
        typer.Option(parser=_seconds, metavar="TIME", help="The time to spend, as in 90s or 1h."),
    ] = "10min",
    out: Annotated[Path, typer.Option(help="The folder of the page.")] = Path("reports/check"),
    seed: Annotated[
        int, typer.Option(min=0, max=LAST_SEED, help="The seed of points, noise and probes.")
    ] = 0,
    weights: Annotated[
        Literal["ema", "raw"],
        typer.Option(help="Averaged weights (ema) or those of the last step (raw)."),
    ] = "ema",
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Import custom classes that the run names.")
    ] = False,
) -> None:
    """Check a model: what it claims to be, whether that fits, and how good a score it is.

    The most informative measurements come first. The same command, run again, resumes and makes the
    intervals narrower.
    """
    from scorefield.engine import Engine
    from scorefield.evaluation.given import open_data
    from scorefield.health.check import check
    from scorefield.health.model import open_model
    from scorefield.progress import Stages

    opened = open_model(model, weights, trust_code)
    source, levels = opened.source, opened.levels
    if data is not None:
        source, levels = open_data(data, opened.field.domain.shape, opened.transform)
    if source is None:
        raise UserError(f"{model} does not name its data: give --data")
    page = out / "index.html"
    try:
        with Stages() as stages:
            found = check(
                opened.field, source, budget, seed=seed, out=out, levels=levels,
                engine=Engine(**engine), stages=stages, alternatives=opened.alternatives,
            )  # fmt: skip
    except KeyboardInterrupt:
        if page.exists():
            print(f"{page} shows what was measured; the same command resumes", file=sys.stderr)
        raise
    print(found)
    print(page)
