"""The verb that checks a model."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from scorefield.errors import UserError
from scorefield.progress import SECONDS

if TYPE_CHECKING:
    from scorefield.health.plan import Number

_UNITS = {"": 1.0, **SECONDS}


def _seconds(text: str) -> float:
    """A time, as in ``90``, ``90s``, ``10min`` or ``1h``; Typer parses defaults too."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", str(text))
    if found is None or found[2] not in _UNITS or float(found[1]) <= 0:
        raise UserError(f"a time is written as in 90s, 10min or 1h, not {text!r}")
    return float(found[1]) * _UNITS[found[2]]


@ending_in_results
@on_engine
def check(
    engine: Chosen,
    model: Model,
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
    seed: Seed = 0,
    weights: Weights = "ema",
    root: Root = ROOT,
    overwrite: Overwrite = False,
    trust_code: TrustCode = False,
) -> Results:
    """Check a model: what it claims to be, whether that fits, and how good a score it is.

    The most informative measurements come first. The same command, run again, resumes and makes the
    intervals narrower; with --overwrite it begins anew.
    """
    from scorefield.engine import Engine
    from scorefield.evaluation.given import open_data
    from scorefield.health.check import check
    from scorefield.health.model import open_model
    from scorefield.progress import Stages
    from scorefield.runs.find import find_run

    place = str(find_run(model, root))
    opened = open_model(place, weights, trust_code)
    source, levels = opened.source, opened.levels
    if data is not None:
        source, levels = open_data(data, opened.field.domain.shape, opened.transform)
    if source is None:
        raise UserError(f"{place} does not name its data: give --data")
    page = out / "index.html"
    try:
        with Stages() as stages:
            found = check(
                opened.field, source, budget, seed=seed, out=out, overwrite=overwrite,
                levels=levels, engine=Engine(**engine), stages=stages,
                alternatives=opened.alternatives,
            )  # fmt: skip
    except KeyboardInterrupt:
        if page.exists():
            print(f"{page} shows what was measured; the same command resumes", file=sys.stderr)
        raise
    about = {"model": place, "data": source.name, "seed": seed}
    verdicts = [line for line in str(found).splitlines() if line]
    return Results(about=about, rows=_rows(found.numbers), notes=verdicts, files=[page])


def _rows(numbers: Sequence[Number]) -> list[dict[str, Any]]:
    """A row a quantity: the smallest and the largest number of all noise levels."""
    rows = []
    for title in dict.fromkeys(number.title for number in numbers):
        some = sorted((n.estimate for n in numbers if n.title == title), key=lambda e: e.value)
        largest = some[-1] if len(some) > 1 else None
        levels = len(some) if len(some) > 1 else None
        rows.append(
            {"quantity": title, "noise levels": levels, "smallest": some[0], "largest": largest}
        )
    return rows
