"""Tables, on standard streams that survive the loss of their reader."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from scorefield.errors import plain


def prepare() -> None:
    """Make standard output and standard error independent of their readers.

    A stream that is closed, or has lost its reader, drops its output; a character outside the
    locale is escaped. Streams that replace the standard ones are unchanged.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Open until the end of the process.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _patient(stream))


def print_sheet(sheet: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Print pairs of names and values under headings."""
    from rich.text import Text

    console = _console()
    width = max(len(what) for pairs in sheet.values() for what, _ in pairs)
    for heading, pairs in sheet.items():
        console.print(Text(heading, style="bold"))
        for what, value in pairs:
            console.print(Text(plain(f"  {what:<{width}}  {value}")), soft_wrap=True)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of cells by their headings: numbers rounded to their intervals, which stand beside
    them, and then their marks. Where the terminal is narrower than the table, each row is a
    paragraph.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    shown = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    cells = [[plain(_text(row[name])) for name in shown] for row in rows]
    table, width = Table(box=box.SIMPLE_HEAD, pad_edge=False), 1
    for place, name in enumerate(shown):
        right = all(isinstance(row[name], int | float | None) for row in rows)
        lines = [name, *(line[place] for line in cells)]
        # A sentence may be broken into lines, a number or a name may not.
        words = max(line.count(" ") for line in lines) > _WORDS
        width += _GAP + min(max(map(cell_len, lines)), _SENTENCE if words else _MOST)
        justify: Any = "right" if right else "left"
        table.add_column(Text(name), justify=justify, no_wrap=not words, overflow="fold")
    for line in cells:
        table.add_row(*map(Text, line))
    console = _console()
    if width <= console.width:
        console.print(table)
        return
    for line in cells:
        console.print()
        for name, cell in zip(shown, line, strict=True):
            if cell:
                console.print(Text(f"{name}: {cell}"), soft_wrap=True)


_WORDS = 6
"""How many spaces a cell has at most that is not broken into lines: more than a number with its
interval and unit.
"""
_GAP, _SENTENCE, _MOST = 3, 30, 10_000
"""The width between two columns, the least of a column of sentences, and the most of others."""


def _text(cell: Any) -> str:
    from scorefield.estimate import Estimate, format_interval
    from scorefield.runs.cells import Marked

    if isinstance(cell, Marked):
        return f"{format_interval(cell.estimate)} {cell.mark}".rstrip()
    if isinstance(cell, Estimate):
        return format_interval(cell)
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return "" if cell is None else str(cell)


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    # Without a terminal there is no width limit.
    return console if console.is_terminal else Console(highlight=False, markup=False, width=10_000)


class _Patient(io.FileIO):
    """A standard stream whose reader may disappear, and whose disk may be full; later output is
    dropped.
    """

    def write(self, content: object, /) -> int:
        try:
            return super().write(content)  # type: ignore[arg-type]
        except OSError as error:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.fileno())
            os.close(devnull)
            if not isinstance(error, BrokenPipeError):
                where = "standard error" if self.fileno() == 2 else "standard output"
                raise OSError(error.errno, error.strerror, where) from error
            return super().write(content)  # type: ignore[arg-type]


def _patient(stream: io.TextIOWrapper) -> TextIO:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Patient(stream.fileno(), "w", closefd=False)),
        stream.encoding,
        "backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )
