"""Plain tables, on standard streams that survive the loss of their reader."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from scorefield.evaluation.records import Evaluation


def prepare() -> None:
    """Make standard output and standard error independent of their readers.

    A stream that is closed, or has lost its reader, drops its output; a character outside the
    locale is escaped. Streams that replace the standard ones are unchanged.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Open until the end of the process.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _patient(stream))


def print_sheet(sheet: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Print pairs of names and values under headings."""
    from rich.text import Text

    from scorefield.errors import plain

    console = _console()
    width = max(len(what) for pairs in sheet.values() for what, _ in pairs)
    for heading, pairs in sheet.items():
        console.print(Text(heading, style="bold"))
        for what, value in pairs:
            console.print(Text(plain(f"  {what:<{width}}  {value}")), soft_wrap=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def print_images(found: Evaluation) -> None:
    """Print the metrics of images of an evaluation with their intervals, and their warnings."""
    from scorefield.evaluation.catalogue import OF_IMAGES

    labels = {metric.name: metric.label for metric in OF_IMAGES}
    rows: list[tuple[str, ...]] = []
    warnings: dict[str, None] = {}
    for d in found.distances:
        if d.metric in labels:
            low, high = d.estimate.interval()
            numbers = f"{d.estimate.value:.5g}", f"{low:.4g} to {high:.4g}", str(d.estimate.n)
            rows.append((labels[d.metric], d.features, str(d.nfe), *numbers))
            warning = d.estimate.settings.get("warning")
            if warning:
                warnings[f"{labels[d.metric]}: {warning}"] = None
    print_table(("metric", "extractor", "calls", "value", "95 % interval", "n"), rows)
    print(*warnings, sep="\n", end="\n" if warnings else "")


def print_methods(found: Evaluation) -> None:
    """Print what samplers reach at equal numbers of network calls, each with its interval."""
    from scorefield.evaluation.catalogue import OF_SAMPLES

    labels = {metric.name: metric.label for metric in OF_SAMPLES if metric.every_budget}
    rows = []
    for d in sorted(found.distances, key=lambda d: (d.metric, d.features, d.budget, d.sampler)):
        if d.metric in labels:
            low, high = d.estimate.interval()
            on = f" on {d.features}" if d.features else ""
            value = f"{d.estimate.value:.4g}", f"{low:.4g} to {high:.4g}"
            rows.append((f"{labels[d.metric]}{on}", str(d.nfe), d.sampler, *value))
    print_table(("distance", "calls", "sampler", "value", "95 % interval"), rows)


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    # Without a terminal there is no width limit.
    return console if console.is_terminal else Console(highlight=False, markup=False, width=200)


class _Patient(io.FileIO):
    """A file whose reader may disappear; later output is dropped."""

    def write(self, content: object, /) -> int:
        try:
            return super().write(content)  # type: ignore[arg-type]
        except BrokenPipeError:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.fileno())
            os.close(devnull)
            return super().write(content)  # type: ignore[arg-type]


def _patient(stream: io.TextIOWrapper) -> TextIO:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Patient(stream.fileno(), "w", closefd=False)),
        stream.encoding,
        "backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )
